"""Names in English text that word lists tell, where a pipeline that goes by capitals does not.

    hey vinicio did you see takáts?        ──▶  words of no English text, after what names follow
    the magnus poulsen version             ──▶  a given name and a family name
    a single to akureyri · ESPOO is windy  ──▶  words of no English text, where one goes, or in capitals
    it is empty since Katarzyna left       ──▶  a given name, with a capital

The lists are the tagger's (`tagger/reading.py`): filters, so that a word in a hundred is taken for a
given name by mistake, and one in ten for a family name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from cosilo.defences.address_parts import begins_line
from cosilo.defences.addresses import PARTICLE
from cosilo.defences.detection import Span
from cosilo.defences.given_names import ALSO_WORDS, GIVEN
from cosilo.defences.tagger.detector import network
from cosilo.defences.tagger.reading import LISTED
from cosilo.defences.words import (
    ALSO_NAMES,
    DAYS,
    MONTHS,
    NOT_NAMES,
    NUMBERED,
    OF_PROGRAMS,
    OF_QUESTIONS,
    ORDINARY,
    SURNAMES_TOO,
)

_SCORE = 0.4
_ENGLISH = LISTED.index("en")
_PROGRAMS = OF_PROGRAMS - ALSO_NAMES
_WORDS = (NOT_NAMES | OF_QUESTIONS | ORDINARY | NUMBERED | _PROGRAMS) | frozenset(
    word.casefold() for word in (*MONTHS, *DAYS)
)
_GIVEN, _FAMILY = 1, 2

_WORD = re.compile(
    r"(?<![\w@./\\#\-])[^\W\d_]{2,24}(?:[-'’][^\W\d_]{2,24}){0,2}(?![\w@/\\(=]|[.\-][\w])"
)
_JOINT = re.compile("[-'’]")
_TO_CALL = re.compile(
    r"(?i)\b(?:hey|hi|hello|yo|dear|ask(?:ed)?|tell|told|met|see|seen|call(?:ed)?|named|it['’]s"
    r"|thanks|thank you"
    r"|mr|mrs|ms|miss|dr|i['’]m|i am|this is)[ .,]{1,3}$"
)
_BESIDE = re.compile(r"(?i)\b(?:with|and|by)[ ]$")
_TO_TOWN = re.compile(
    r"(?i)\b(?:(?:train|bus|flights?|tickets?|boat|drive|drove|trip|moved|travel(?:l?ed|l?ing)?"
    r"|flew|relocated) (?:to|from|for)"
    r"|(?:live[sd]?|living|born) in|(?:i['’]m|i am|come|comes|came|back|is) from)[ ]$"
)
_TO_GO = re.compile(
    r"(?i)\b(?:(?:live[sd]?|living|born|stay(?:ed|ing)?|work(?:s|ed|ing)?|grew up|based|now|here"
    r"|sang|recorded)"
    r"(?: it)?(?: live)? in"
    r"|(?:train|bus|flights?|tickets?|tram|boat|drive|drove|driving|way|road|go|going|goes|went"
    r"|get|getting|got|back|moved"
    r"|moving|travel(?:l?ed|l?ing)?|trip|flew|fly(?:ing)?|return(?:ed|ing)?|come|comes|came|single"
    r"|far|i['’]m|am|are|is"
    r"|welcome|sent|ship(?:ped)?|deliver(?:ed)?|landed)(?: is it)? (?:back )?(?:to|from|in|at|near|for)"
    r"|near|outside|visit(?:ed|ing)?|leaving|reached)[ ]"
    r"(?:(?!(?:the|an?|my|your|his|her|their|our|this|that|these|those|it|its)[ ])[a-z]{2,12}[ ]){0,2}$"
)
_OF_ENGLISH = re.compile(
    r"(?:ing|ed|ly|[ts]ions?|ity|ics?|ical|al|ive|ous|[ai]bles?|ness|ments?|isms?|ists?|log(?:y"
    r"|ies|ist)|tom(?:y|ies)"
    r"|scop(?:y|ies|ic)|itis|os[ei]s|a?emi[ac]s?|path(?:y|ies)|graphy|therapy|plasty|ases?|ines?"
    r"|ides?|ates?|oids?|ar?y"
    r"|ory|ants?|ents?|i[sz]e[sd]?|isations?|ors?|less|ful|ship|ware|ies|bite|able)$"
)
"""How words end that no list holds and are English all the same, of medicine most."""
_STARTS = re.compile(r"(?:^|[.!?:\n]\s*|[\"“(]|['’]s )[^\w]{0,3}$")
_CAPITAL = re.compile(r"[^\W\d_a-z]")
_INFORMAL = 400  # characters
_NAME_AFTER = re.compile(
    rf"[ ](?P<value>(?:(?:{PARTICLE}"
    rf"|[^\W\d_]\.?)[ ]){{0,2}}(?P<last>[^\W\d_]{{2,24}}(?:[-'’][^\W\d_]{{2,24}})?))(?![\w@/(=])"
)


@lru_cache(maxsize=16_384)
def _known(word: str) -> tuple[bool, bool, int]:
    """Whether a word in small letters is one of the commonest English ones, whether any English text
    uses it, and whose names it may be one of.
    """
    common, known, names = network().lists.of(word)
    return bool(common >> _ENGLISH & 1), bool(known >> _ENGLISH & 1), names


def _is_english(word: str) -> bool:
    return all(_known(part)[1] or part in _WORDS for part in _JOINT.split(word))


def _may_be(word: str, names: int) -> bool:
    """Whether a word in small letters is in a list of `names`, and hardly one of a sentence."""
    common, _, listed = _known(word)
    return not common and bool(listed & names) and word not in _WORDS


def by_lists(text: str) -> Iterator[Span]:
    """People and places in English `text`."""
    informal = _is_informal(text)
    shouted = text.isupper()
    end = -1
    for found in _WORD.finditer(text):
        written = found.group()
        small = written.islower()
        if small and not informal:
            continue  # most words
        start = found.start()
        if start < end or len(written) < 3:
            continue
        word = written.casefold()
        if small:
            span = _small(text, found, word)
        elif written.isupper():
            span = _capitals(text, found, word, shouted)
        elif written.istitle() and _is_titled_name(word):
            span = Span(start, found.end(), "PERSON", _SCORE)
        else:
            continue
        if span is not None:
            end = span.end
            yield span


def is_full_name(words: str) -> bool:
    """Whether `words`, which fill a cell, are a given name and a family name."""
    found = _FILLS.fullmatch(words)
    if found is None or not (words.istitle() or words.islower() or words.isupper()):
        return False
    first, last = found["first"].casefold(), found["last"].casefold()
    if found["comma"]:
        first, last = last, first
    first, last = first.partition("-")[0], last.rpartition("-")[2]
    if first not in GIVEN and not _may_be(first, _GIVEN):
        return False
    common, english, listed = _known(last)
    if last in _WORDS or (english and _OF_ENGLISH.search(last)):
        return False
    if words.islower() and (first in ALSO_WORDS or first in ALSO_NAMES):
        return not common
    return not common or bool(listed & _FAMILY) or last in SURNAMES_TOO


def is_everyday(words: str) -> bool:
    """Whether `words` are written small and each is one of the commonest English ones."""
    if not words.islower():
        return False
    return all(w in _WORDS or _known(w)[0] for part in words.split() for w in _JOINT.split(part))


_FILLS = re.compile(
    rf"(?P<first>[^\W\d_]{{2,24}}(?:-[^\W\d_]{{2,24}})?)(?P<comma>,)?[ ]"
    rf"(?:(?:{PARTICLE}|[^\W\d_]\.?)[ ]){{0,2}}(?P<last>[^\W\d_]{{2,24}}(?:['’-][^\W\d_]{{2,24}})?)"
)


def _is_titled_name(word: str) -> bool:
    """Whether a word that is written with a capital is a given name, or two names in one."""
    if "-" in word:
        parts = word.split("-")
        return not any(p in _WORDS or _known(p)[0] for p in parts) and any(
            not _known(p)[1] for p in parts
        )
    return _may_be(word, _GIVEN)


def _is_informal(text: str) -> bool:
    """Whether a short `text` has no capitals but where sentences begin, and so none for names."""
    if len(text) > _INFORMAL:
        return False
    return all(
        _STARTS.search(text[max(m.start() - 8, 0) : m.start()]) or _ALONE.match(text, m.start())
        for m in _CAPITAL.finditer(text)
    )


_ALONE = re.compile(r"(?<!\w)I(?!\w)")


def _small(text: str, found: re.Match[str], word: str) -> Span | None:
    start, end = found.span()
    own = word in GIVEN and word not in ALSO_WORDS and word not in ALSO_NAMES
    if not own and _OF_ENGLISH.search(word):
        return None
    given, english = _may_be(word, _GIVEN), _is_english(word)
    if own or given:
        after = _NAME_AFTER.match(text, end)
        if after is not None and after["last"].islower() and _is_family(after["last"]):
            return Span(start, after.end("value"), "PERSON", _SCORE)
        if not own and not english:
            return Span(start, end, "PERSON", _SCORE)
    before = text[max(start - 48, 0) : start]
    if english:
        if given and _TO_CALL.search(before):
            return Span(start, end, "PERSON", _SCORE)
        to_town = not _known(word)[0] and word not in _WORDS and _TO_TOWN.search(before)
        return Span(start, end, "PLACE", _SCORE) if to_town else None
    if going := _TO_GO.search(before):
        words = before[going.start() :].split(" ")[:-1]
        first = words[-1] if len(words) > 1 and words[-1] not in _NO_FIRST_WORDS else ""
        return Span(start - (len(first) + 1 if first else 0), end, "PLACE", _SCORE)
    if _TO_CALL.search(before) or (_BESIDE.search(before) and _may_be(word, _GIVEN | _FAMILY)):
        return Span(start, end, "PERSON", _SCORE)
    return None


_NO_FIRST_WORDS = _WORDS | {
    "near", "outside", "visit", "visited", "visiting", "leaving", "reached"
}  # fmt: skip
"""Before the last word of a town's name."""


def _is_family(word: str) -> bool:
    """Whether a word in small letters after a given name is a family name."""
    if word in _WORDS or _known(word)[0] or _OF_ENGLISH.search(word):
        return False
    return bool(_known(word)[2] & _FAMILY) or not _is_english(word)


def _capitals(text: str, found: re.Match[str], word: str, shouted: bool) -> Span | None:
    start, end = found.span()
    if _may_be(word, _GIVEN) or (word in GIVEN and word not in ALSO_NAMES):
        after = _NAME_AFTER.match(text, end)
        if after is not None and after["value"].isupper():
            last = after["last"].casefold()
            if _may_be(last, _FAMILY) or not _is_english(last):
                return Span(start, after.end("value"), "PERSON", _SCORE)
    elif len(word) > 4 and not _is_english(word):
        after = _NAME_AFTER.match(text, end)
        if after is not None and after["value"].isupper() and len(after["last"]) > 4:
            last = after["last"].casefold()
            if _may_be(last, _FAMILY) and not _is_english(last):
                return Span(start, after.end("value"), "PERSON", _SCORE)
    if len(word) < 4 or _is_english(word):
        return None
    if shouted or (
        len(word) > 4
        and (_TO_GO.search(text[max(start - 48, 0) : start]) or _stands_as_town(text, start, end))
    ):
        return Span(start, end, "PLACE", _SCORE)
    return None


_TOWNLY = re.compile(
    r"[ ]{0,2}(?:,|\r?\n|$)|[ ](?:is (?:where|in|a town)|police|office|airport|station|was)\b"
)


def _stands_as_town(text: str, start: int, end: int) -> bool:
    """Whether a word begins a line and ends what is said there, as in an address."""
    return begins_line(text, start) and _TOWNLY.match(text, end) is not None
