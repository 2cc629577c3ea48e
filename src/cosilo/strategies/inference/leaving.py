"""What a small model wrote for the other side is read at home before it leaves.

    original ──▶ owner.finds, identifiers, own words ──▶ Private
    written  ──▶ Private.fault ──▶ "" and it may leave, or what is wrong with it

The small model is not trusted: it may repeat what it was told to leave out. So what it wrote is looked
through with the eyes of the attackers on the record (`cosilo.matching`): a value counts as there
whatever its case, spaces and signs, with a few letters changed, with words missing, or encoded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cosilo.boundary.messages import Ask
from cosilo.errors import PrivacyError
from cosilo.matching import FuzzyPool, Pool, normalised
from cosilo.parties.data_owner import PrivateValue
from cosilo.strategies.base import Session
from cosilo.strategies.inference.decoding import decoded, mirrored
from cosilo.types import Chat, Demonstration

VERSION = 3

UNUSUAL = "UNUSUAL"
"""The kind of a word that is private only because it is not known to be common."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_IDENTIFIER = re.compile(r"[^\s,;()<>\[\]{}\"“”]*(?:@|://|\d)[^\s,;()<>\[\]{}\"“”]*")
_BEGINS = re.compile(r"(?:^|[.!?:;\n\"“(\[])\s*(?:[-*•]\s*)?$")
_I = re.compile(r"I(?:['’]\w+)?")
_SHORTEST_NAME = 3
_FEWEST_DIGITS = 5
_LONG = 7  # letters of a value that stand in a row in other words by no chance
_FREQUENT = 10_000  # of a tokeniser's tokens, the first; no rarer word is common with a capital


class Private:
    """What of one original must not leave.

    Args:
        findings: its private values.
        texts: the original itself, of which no long piece may leave as it is.
        verbatim: so many words in a row of it may; None for any number.
        fuzzy: values also count as there with letters changed or words missing.

    Attributes:
        findings: private values that have a letter or a digit, each once.
        signs: those that have none, which stand where they are written so.
    """

    def __init__(
        self,
        findings: Iterable[PrivateValue],
        texts: Sequence[str],
        *,
        verbatim: int | None,
        fuzzy: bool = True,
    ) -> None:
        known: dict[str, PrivateValue] = {}
        signs: dict[str, PrivateValue] = {}
        for finding in findings:
            if finding.value.strip():
                of = known if normalised(finding.value).text else signs
                of.setdefault(finding.value, finding)  # what a detector says of it stands first
        self.findings, self.signs = tuple(known.values()), tuple(signs.values())
        sure = [f.value for f in self.findings if f.kind != UNUSUAL]
        rare = [f.value for f in self.findings if f.kind == UNUSUAL]
        self._sure = FuzzyPool(sure) if fuzzy else Pool(sure, normalised)
        self._rare = Pool(rare, normalised)
        self._sure_count, self._rare_count = len(sure), len(rare)
        self._long = {value for value in map(_letters, sure) if len(value) >= _LONG}
        self._verbatim = verbatim
        self._runs = set() if verbatim is None else {r for t in texts for r in runs(t, verbatim)}

    def share(self, text: str) -> float:
        """The share of the private values that stand in `text`, 0 to 1; 0 where there are none."""
        folded = normalised(text)
        found = len(self._sure.found(folded)) + len(self._rare.found(folded))
        return found / max(1, self._sure_count + self._rare_count)

    def fault(self, text: str) -> str:
        """Why `text` may not leave, without a word of it; empty where it may."""
        if not normalised(text).text:
            return "it is empty"
        if any(value.value.strip() in text for value in self.signs):
            return "a private value stands in it"
        for said in (text, *decoded(text)):
            if fault := self._fault(said):
                return fault
        if any(value in _letters(said) for said in (text, *mirrored(text)) for value in self._long):
            return "a private value stands in it"
        return ""

    def _fault(self, text: str) -> str:
        folded = normalised(text)
        if self._sure.found(folded):
            return "a private value stands in it"
        if self._rare.found(folded):
            return "a word stands in it that is not known to be common"
        if self._verbatim is not None and not self._runs.isdisjoint(runs(text, self._verbatim)):
            return f"more than {self._verbatim} words in a row are the original's"
        return ""


def _letters(text: str) -> str:
    return normalised(text).text


def runs(text: str, longest: int) -> set[tuple[str, ...]]:
    """All runs of one word more than `longest`."""
    words = [normalised(w).text for w in _WORD.findall(text)]
    return {tuple(words[i : i + longest + 1]) for i in range(len(words) - longest)}


@dataclass(frozen=True, kw_only=True)
class PrivateReader:
    """How originals are read for what is private.

    Attributes:
        never: words and phrases that must not leave, wherever they stand.
        common: the words that are nobody's in particular; None where unusual words may leave.
        verbatim: as for `Private`.
        fuzzy: as for `Private`.
    """

    never: tuple[str, ...] = ()
    common: frozenset[str] | None = None
    verbatim: int | None = None
    fuzzy: bool = True

    async def read(self, session: Session, *chats: Chat, context: Chat | None = None) -> Private:
        """What must not leave of `chats`, together.

        Args:
            context: the part of which no long piece may leave; all of `chats` where not given.

        Raises:
            PrivacyError: the owner cannot say.
        """
        finds = session.owner.finds
        if finds is None:
            raise PrivacyError(
                "the owner has no way to find what is private, so nothing was sent: open the session "
                "with `open_session`, or give the owner a finder"
            )
        found = [PrivateValue(text, "OWN") for text in self.never]
        texts = [p.text for chat in chats for p in Ask(chat=chat).passages()]
        for chat in chats:
            found += await finds(chat)
        found += [PrivateValue(name, f.kind) for f in found for name in _names_in(f)]
        for text in texts:
            found += identifiers(text)
            if self.common is not None:
                found += unusual(text, self.common)
        if context is not None:
            texts = [p.text for p in Ask(chat=context).passages()]
        return Private(found, texts, verbatim=self.verbatim, fuzzy=self.fuzzy)


def identifiers(text: str) -> list[PrivateValue]:
    """What names something by its form: an address, a long number, a code of letters and digits."""
    found = []
    for match in _IDENTIFIER.finditer(text):
        value = match.group().strip(".:!?'’")
        digits = sum(c.isdigit() for c in value)
        mixed = digits >= 2 and sum(c.isalpha() for c in value) >= 2
        if "@" in value or "://" in value or digits >= _FEWEST_DIGITS or mixed:
            found.append(PrivateValue(value, "IDENTIFIER"))
    return found


def unusual(text: str, common: frozenset[str]) -> list[PrivateValue]:
    """The words of `text` that may name somebody or something, because they are not `common` as they
    are written; a capital at the head of a sentence says nothing. What stands together is one.

    >>> common = frozenset(["my", "friend", "met"])
    >>> [f.value for f in unusual("My friend Ada Byron met bluebird42", common)]
    ['Ada Byron', 'bluebird42']
    """
    found: list[tuple[int, int]] = []
    for word in _WORD.finditer(text):
        if _usual(word, common):
            continue
        if found and text[found[-1][1] : word.start()] == " ":
            found[-1] = (found[-1][0], word.end())
        else:
            found.append((word.start(), word.end()))
    values = dict.fromkeys(text[start:end] for start, end in found)
    return [PrivateValue(value, UNUSUAL) for value in values]


def _usual(word: re.Match[str], common: frozenset[str]) -> bool:
    said = word.group()
    short_number = said.isdigit() and len(said) < _FEWEST_DIGITS
    if said in common or short_number or _I.fullmatch(said):
        return True
    begins = _BEGINS.search(word.string, 0, word.start()) is not None
    return begins and said[0].isupper() and said[0].lower() + said[1:] in common


def common_words(examples: Iterable[Demonstration], *, least: int = 2) -> frozenset[str]:
    """The words that stand in at least `least` of the owner's records, replies included, and with a
    capital or a digit in one more: those of a single record may be its person's own.
    """
    counts: Counter[str] = Counter()
    for example in examples:
        texts = [*(turn.content for turn in example.chat), example.target]
        counts.update({w for text in texts for w in _WORD.findall(text)})
    return frozenset(word for word, n in counts.items() if n >= least + (not _plain(word)))


def vocabulary_words(pieces: Iterable[bytes]) -> frozenset[str]:
    """The words that a tokeniser has as one token each, behind a space and in small letters, and with a
    capital those among the first: byte-pair encoding (Sennrich et al., ACL 2016) joins the pairs that
    are most frequent in public text first, so these are nobody's in particular.

    Args:
        pieces: what each token stands for, in the order of its id.

    >>> sorted(vocabulary_words([b" the", b"qu", b" queue", b" London", b"12"]))
    ['Queue', 'The', 'queue', 'the']
    """
    found = set()
    for rank, piece in enumerate(pieces):
        word = piece[1:].decode(errors="replace")
        if piece[:1] == b" " and word.isalpha() and word.islower():
            found.add(word)
            if rank < _FREQUENT:
                found.add(word.capitalize())
    return frozenset(found)


def _plain(word: str) -> bool:
    return word.islower() and not any(c.isdigit() for c in word)


def _names_in(finding: PrivateValue) -> list[str]:
    """The names that a person's full name is made of."""
    if finding.kind != "PERSON":
        return []
    words = _WORD.findall(finding.value)
    return [w for w in words if len(w) >= _SHORTEST_NAME and w[0].isupper()] if words[1:] else []
