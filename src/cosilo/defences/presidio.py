"""Names and places by spaCy, numbers with a checksum by Presidio, and everything else that has a form
by our own patterns.

Of Presidio the recognisers that know a checksum are used, on their own: its engine would also tag,
parse and lemmatise, for a context bonus that is not used here.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.abc import MetaPathFinder
from itertools import pairwise
from typing import Any

from cosilo.defences.detection import Span, Steps, gathered, run
from cosilo.defences.names import listed
from cosilo.defences.patterns import PatternDetector
from cosilo.errors import ConfigError
from cosilo.models import catalog
from cosilo.registry import Loads

# What we call spaCy's labels, and Presidio's.
_NAMES = {"PERSON": "PERSON", "GPE": "PLACE", "LOC": "PLACE", "FAC": "PLACE", "ORG": "ORG"}
_NUMBERS = {
    "CREDIT_CARD": "CARD",
    "IBAN_CODE": "IBAN",
    "CRYPTO": "WALLET",
    "US_SSN": "SSN",
    "US_ITIN": "SSN",
}
_SURE = 0.85  # spaCy tells no score; Presidio takes this one
# Beside the parts of the pipeline that are not used: the texts of its 700,000 words, half of the
# memory. Its vectors are found by a word's hash.
_UNUSED = [
    "tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer", "strings",
]  # fmt: skip

_TITLED = 2_000  # characters of a text without capitals that are read a second time, with them
# The model of entities reads a text in pieces, each with some words before and after it: what it
# says of a word depends on the four words around it and on the entity it is in.
_PIECE = 600
_CONTEXT = 24
# Of short texts, so many are read by one call; what was found in so many is kept until it is used.
_TOGETHER = 64
_KEPT = 10_000
# spaCy takes a run without spaces apart sign by sign from its ends, reading all of it each time.
_RUN = 1_000
_SIGNS = 64
_LONG_RUN = re.compile(rf"\S{{{_RUN + 1},}}")
_LONG_SIGNS = re.compile(rf"[^\w\s]{{{_SIGNS + 1},}}")

Place = tuple[int, int, str]


class PresidioDetector:
    """What Presidio and spaCy find, what our patterns find, and capitalised words that no vocabulary
    knows.

    A short text without capital letters is read a second time as if every word had one.

    Args:
    model: a spaCy pipeline: its name in Cosilo's catalog, or a folder.
    organizations: also report names of organisations.
    """

    def __init__(self, model: str = "en-core-web-md", organizations: bool = True) -> None:
        self._names = _names(model)
        self._numbers = _numbers()
        self._patterns = PatternDetector()
        self._organizations = organizations

    def detect(self, text: str, public: str = "") -> list[Span]:
        return run(self.steps(text, public))

    def steps(self, text: str, public: str = "") -> Steps[list[Span]]:
        spans = yield from self._patterns.steps(text, public)
        spans += yield from self._entities(text, text)
        titled = text.title() if text == text.lower() and len(text) <= _TITLED else text
        if titled != text and len(titled) == len(text):
            again = yield from self._entities(titled, text)
            spans += [replace(s, score=0.4) for s in again if s.kind in ("PERSON", "PLACE")]
        return spans + (yield from gathered(listed(text, spans)))

    def ahead(self, texts: Sequence[str]) -> Steps[None]:
        titled = (t.title() for t in texts if t == t.lower() and len(t) <= _TITLED)
        yield from self._names.ahead(dict.fromkeys((*texts, *titled)))

    def _entities(self, read: str, text: str) -> Steps[list[Span]]:
        named, strange = yield from self._names.find(read)
        spans = [Span(start, end, _NAMES[label], _SURE) for start, end, label in named]
        for recognizer in self._numbers:
            found = recognizer.analyze(read, recognizer.supported_entities)
            spans += [Span(r.start, r.end, _NUMBERS[r.entity_type], float(r.score)) for r in found]
            yield
        kept = [
            s
            for s in spans
            if any(c.isalnum() for c in text[s.start : s.end])
            and not (s.kind == "ORG" and self._is_public(text[s.start : s.end]))
        ]
        if read == text:
            kept += [Span(start, end, "PERSON", 0.35) for start, end in strange]
        return kept

    def _is_public(self, words: str) -> bool:
        return not self._organizations or _acronym(words)


def _acronym(words: str) -> bool:
    return len(words) <= 5 and words.isalpha() and words.isupper()


def presidio_loads(model: str) -> Loads:
    """What a `PresidioDetector` over `model` loads."""
    packages = ("presidio_analyzer", "spacy")
    return Loads((model,) if model in catalog.entries() else (), packages)


class _Names:
    """spaCy's named entities, and words that are in no vocabulary."""

    def __init__(self, nlp: Any) -> None:
        self._nlp = nlp
        self._ahead: dict[str, list[Place]] = {}

    def ahead(self, texts: Iterable[str]) -> Steps[None]:
        """Keep the entities of short `texts` for `find`: one call of the model for many of them."""
        waiting: list[Any] = []
        words = 0
        for text in texts:
            if _broken(text)[1]:
                continue
            waiting.append(self._nlp.make_doc(text))
            words += len(waiting[-1])
            if words > _PIECE or len(waiting) == _TOGETHER:
                self._keep(waiting)
                waiting, words = [], 0
                yield
        self._keep(waiting)

    def _keep(self, docs: list[Any]) -> None:
        if len(self._ahead) > _KEPT:  # of messages that nobody waits for any more
            self._ahead.clear()
        for doc in self._nlp.pipe(docs, batch_size=_TOGETHER):
            self._ahead[doc.text] = [
                (e.start_char, e.end_char, e.label_) for e in doc.ents if e.label_ in _NAMES
            ]

    def find(self, text: str) -> Steps[tuple[list[Place], list[tuple[int, int]]]]:
        """The entities of `text` as (start, end, label), and the strange words."""
        read, cuts = _broken(text)
        doc = self._nlp.make_doc(read)
        yield
        named = self._ahead.pop(text, None)
        if named is None:
            named = []
            for start in range(0, len(doc), _PIECE):
                named += self._piece(doc, start)
                yield
        strange = []
        for token in doc[1:]:
            if len(token) > 2 and token.is_alpha and self._is_strange(token.text):
                strange.append((token.idx, token.idx + len(token)))
                yield
        return (
            [(_before(a, cuts), _before(b, cuts), label) for a, b, label in named],
            [(_before(a, cuts), _before(b, cuts)) for a, b in strange],
        )

    def _piece(self, doc: Any, start: int) -> Iterator[Place]:
        """The entities that begin in the words `start` to `start + _PIECE` of `doc`."""
        first = max(0, start - _CONTEXT)
        last = min(len(doc), start + _PIECE + _CONTEXT)
        piece = doc if (first, last) == (0, len(doc)) else doc[first:last].as_doc()
        offset = doc[first].idx
        for entity in self._nlp(piece).ents:
            if entity.label_ in _NAMES and start <= first + entity.start < start + _PIECE:
                yield offset + entity.start_char, offset + entity.end_char, entity.label_

    def _is_strange(self, word: str) -> bool:
        """Whether a capitalised word is in no vocabulary, in small letters or as it is: mostly a
        name."""
        vocab = self._nlp.vocab
        return word[0].isupper() and not (vocab.has_vector(word.lower()) or vocab.has_vector(word))


def _broken(text: str) -> tuple[str, list[int]]:
    """`text` with spaces in its very long runs without one, and where those stand in the result."""
    cuts: set[int] = set()
    for signs in _LONG_SIGNS.finditer(text):
        cuts.update(range(signs.start() + _SIGNS, signs.end(), _SIGNS))
    for run_ in _LONG_RUN.finditer(text):
        start, end = run_.span()
        while end - start > _RUN:  # after a sign where there is one
            half = range(start + _RUN - 1, start + _RUN // 2, -1)
            start = 1 + next((i for i in half if not text[i].isalnum()), half[0])
            cuts.add(start)
    places = sorted(cuts)
    pieces = [text[a:b] for a, b in pairwise((0, *places, len(text)))]
    return " ".join(pieces), [cut + i for i, cut in enumerate(places)]


def _before(place: int, cuts: Sequence[int]) -> int:
    """A place of a broken text, in the text before."""
    return place - bisect_right(cuts, place - 1)


@lru_cache(maxsize=4)
def _names(model: str) -> _Names:
    """The names that `model` finds, loaded once a process.

    Raises:
        ConfigError: spaCy is not installed, or there is no such model.
        CatalogError: the model was not pulled.
    """
    place = catalog.path(model) if model in catalog.entries() else model
    try:
        with _without_frameworks():
            import spacy

            return _Names(spacy.load(place, exclude=_UNUSED))
    except ImportError as error:
        raise _missing(error) from None
    except OSError as error:
        raise ConfigError(
            f"model {model!r} is in no catalog, and no spaCy pipeline can be loaded from there; "
            "cosilo models list names those of the catalog"
            if place == model
            else f"model {model!r} cannot be loaded from {str(place)!r} ({type(error).__name__}); "
            f"cosilo models pull {model} fetches it anew"
        ) from None


@lru_cache(maxsize=1)
def _numbers() -> tuple[Any, ...]:
    """Presidio's recognisers of numbers with a checksum.

    Raises:
        ConfigError: Presidio is not installed.
    """
    try:
        with _without_frameworks():
            from presidio_analyzer.predefined_recognizers import (
                CreditCardRecognizer,
                CryptoRecognizer,
                IbanRecognizer,
                UsItinRecognizer,
                UsSsnRecognizer,
            )
    except ImportError as error:
        raise _missing(error) from None
    kinds = (
        CreditCardRecognizer,
        IbanRecognizer,
        CryptoRecognizer,
        UsSsnRecognizer,
        UsItinRecognizer,
    )
    return tuple(kind() for kind in kinds)


def _missing(error: ImportError) -> ConfigError:
    return ConfigError(
        f"the detector 'presidio' needs {error.name}; install it with: pip install 'cosilo[pii]'"
    )


class _Absent(MetaPathFinder):
    """Says of some packages that they are not installed."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def _without_frameworks() -> Iterator[None]:
    """spaCy and Presidio import what they find of these and do without what they do not find.

    Neither is used here; torch and transformers together are 300 MB and 4 s.
    """
    names = ("torch", "transformers", "tensorflow", "mxnet", "cupy", "jax", "stanza", "gliner")
    absent = _Absent(frozenset(name for name in names if name not in sys.modules))
    sys.meta_path.insert(0, absent)
    try:
        yield
    finally:
        sys.meta_path.remove(absent)
