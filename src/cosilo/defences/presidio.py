"""Names and places by spaCy, in languages that its pipeline does not read by our own tagger; numbers
with a checksum by Presidio, and everything else that has a form by our own patterns.

Of Presidio the recognisers that know a checksum are used, on their own: its engine would also tag,
parse and lemmatise, for a context bonus that is not used here.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.abc import MetaPathFinder
from itertools import chain, pairwise
from typing import Any

from cosilo.defences.beside import beside
from cosilo.defences.by_lists import by_lists
from cosilo.defences.detection import Span, Steps, due, gathered, run, shifted
from cosilo.defences.entities import Entity, EntityReader, UnknownModelError
from cosilo.defences.languages.guess import ENGLISH, LanguagePiece, pieces
from cosilo.defences.names import listed
from cosilo.defences.patterns import PatternDetector
from cosilo.defences.tagger.detector import TaggerDetector
from cosilo.defences.tagger.reading import LANGUAGES
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
# What each of these has at least.
_NEEDS = {
    "CREDIT_CARD": re.compile(r"\d{4}(?:[ \-]?\d){9}"),
    "IBAN_CODE": re.compile(r"(?i)[a-z]{2}\d{2}(?:[ \-]?[a-z\d]{4}){2}"),
    "CRYPTO": re.compile(r"(?i)(?:bc1|[13])[a-z\d]{25}"),
    "US_SSN": re.compile(r"\d{9}|\d{3}-\d{6}|\d{5}-\d{4}|\d{3}[ \-.]\d\d[ \-.]\d{4}"),
    "US_ITIN": re.compile(r"9\d\d[ \-]?\d\d[ \-]?\d{4}"),
}
_GUESSED = 0.45  # what cues of our patterns that are often wrong count, and less
_SURE = 0.85  # spaCy tells no score; Presidio takes this one
# Beside the parts of the pipeline that are not used: the texts of its 700,000 words, half of the
# memory. Its vectors are found by a word's hash.
_UNUSED = [
    "tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer", "strings",
]  # fmt: skip

# What is asked about a word: by the model, by spaCy's tokenizer, or here.
_ASKED = ("LOWER", "NORM", "SHAPE", "PREFIX", "SUFFIX", "IS_ALPHA", "IS_SPACE", "LANG")
_MOST_SPLIT = 50_000  # words that are known to have been taken apart

_TITLED = 2_000  # characters of a text without capitals that are read a second time, with them
# A long text is read by spaCy in pieces, each with some words before and after it: what is said of a
# word depends on those around it and on its entity.
_PIECE = 600
_CONTEXT = 24
# spaCy takes a run without spaces apart sign by sign from its ends, reading all of it each time.
_RUN = 1_000
_SIGNS = 64
_LONG_RUN = re.compile(rf"\S{{{_RUN + 1},}}")
_LONG_SIGNS = re.compile(rf"[^\w\s]{{{_SIGNS + 1},}}")

Place = tuple[int, int, str]
Range = tuple[int, int]
Found = tuple[list[Place], list[Range]]
"""The entities of a text, and its strange words."""


class PresidioDetector:
    """What Presidio and spaCy find, what our patterns find, and capitalised words that no vocabulary
    knows. What is in another language than the pipeline's is read by a `TaggerDetector`.

    A short text without capital letters is read a second time as if every word had one.

    Args:
    model: a spaCy pipeline: its name in Cosilo's catalog, or a folder.
    organizations: also report names of organisations.
    """

    def __init__(self, model: str = "en-core-web-md", organizations: bool = True) -> None:
        self._names = _names(model)
        self._numbers = _numbers()
        self._tagger = TaggerDetector()
        self._patterns = PatternDetector()
        self._organizations = organizations

    def detect(self, text: str, public: str = "") -> list[Span]:
        return run(self.steps(text, public))

    def steps(self, text: str, public: str = "") -> Steps[list[Span]]:
        return (yield from self.together([text], public))[0]

    def together(self, texts: Sequence[str], public: str = "") -> Steps[list[list[Span]]]:
        parts = [[(p, text[p.start : p.end]) for p in pieces(text)] for text in texts]
        if due():
            yield
        read: dict[str, None] = {}
        for piece, part in chain.from_iterable(parts):
            if not all(map(self._is_tagged, piece.languages)):
                read |= dict.fromkeys((part, _titled(part)))
        found = yield from self._names.find(list(read))
        places = dict(zip(read, found, strict=True))
        everything = []
        for text, here in zip(texts, parts, strict=True):
            spans = yield from self._patterns.steps(text, public)
            tagged: list[tuple[LanguagePiece, set[int]]] = []
            for piece, part in here:
                inside = yield from self._checked(part)
                sure = len(piece.languages) == 1
                for language in piece.languages:
                    if self._is_tagged(language):
                        names, possible = yield from self._tagger.named(part, language, sure)
                        inside += names
                        if sure:
                            tagged.append((piece, possible))
                    else:
                        inside += self._entities(part, places)
                        if language == ENGLISH:
                            inside += yield from gathered(by_lists(part))
                spans += shifted(inside, piece.start)
            spans += yield from gathered(listed(text, spans))
            spans += yield from gathered(beside(text, spans))
            everything.append([s for s in spans if all(_is_believed(s, *read) for read in tagged)])
        return everything

    def _is_tagged(self, language: str) -> bool:
        """Whether names in `language` are found by the tagger, and not by the pipeline."""
        return language in LANGUAGES and language != self._names.language

    def _entities(self, text: str, places: Mapping[str, Found]) -> list[Span]:
        """What the pipeline found, also in `text` as if every word had a capital."""
        spans = []
        for read in dict.fromkeys((text, _titled(text))):
            named, strange = places[read]
            found = [
                Span(start, end, _NAMES[label], _SURE)
                for start, end, label in named
                if any(c.isalnum() for c in text[start:end])
                and not (_NAMES[label] == "ORG" and self._is_public(text[start:end]))
            ]
            if read == text:
                spans += found + [Span(start, end, "PERSON", 0.35) for start, end in strange]
            else:
                spans += [replace(s, score=0.4) for s in found if s.kind in ("PERSON", "PLACE")]
                spans += [Span(start, end, "PERSON", 0.35) for start, end in strange]
        return spans

    def _checked(self, text: str) -> Steps[list[Span]]:
        """Numbers with a checksum."""
        spans: list[Span] = []
        possible = {kind for kind, needs in _NEEDS.items() if needs.search(text)}
        for recognizer in self._numbers:
            if possible.isdisjoint(recognizer.supported_entities):
                continue
            found = recognizer.analyze(text, recognizer.supported_entities)
            spans += [Span(r.start, r.end, _NUMBERS[r.entity_type], float(r.score)) for r in found]
            if due():
                yield
        return spans

    def _is_public(self, words: str) -> bool:
        return not self._organizations or _acronym(words)


def _is_believed(span: Span, piece: LanguagePiece, possible: set[int]) -> bool:
    """Whether `span` is no mere guess by the words around it, or the tagger, to which the words at the
    places `possible` of `piece` may be of names, does not rule it out.
    """
    inside = piece.start <= span.start < piece.end
    if not inside or span.score > _GUESSED or span.kind not in ("PERSON", "PLACE"):
        return True
    return any(i - piece.start in possible for i in range(span.start, span.end))


def _titled(text: str) -> str:
    """A short `text` without capitals, with one for every word; any other as it is."""
    titled = text.title() if text == text.lower() and len(text) <= _TITLED else text
    return titled if len(titled) == len(text) else text


def _acronym(words: str) -> bool:
    return len(words) <= 5 and words.isalpha() and words.isupper()


def presidio_loads(model: str) -> Loads:
    """What a `PresidioDetector` over `model` loads."""
    packages = ("presidio_analyzer", "spacy")
    return Loads((model,) if model in catalog.entries() else (), packages)


class _Names:
    """The pipeline's named entities, and words that are in no vocabulary."""

    def __init__(self, nlp: Any) -> None:
        self._nlp = nlp
        self._split: set[int] = set()
        self.language: str = nlp.lang
        try:
            self.entities = EntityReader(nlp).entities
        except UnknownModelError:  # a pipeline of the owner's
            self.entities = self._by_spacy

    def let_go(self) -> None:
        """Drop what spaCy itself would need, where it is not asked: 24 MB, and what it finds out about
        each new word.
        """
        if self.entities != self._by_spacy:
            from spacy.attrs import IDS

            vocab = self._nlp.vocab
            vocab.vectors.data = vocab.vectors.data[:0]  # its keys tell which words it knows
            for number in set(vocab.lex_attr_getters) - {IDS[name] for name in _ASKED}:
                del vocab.lex_attr_getters[number]

    def find(self, texts: Sequence[str]) -> Steps[list[Found]]:
        """For each of `texts` the entities as (start, end, label), and the strange words."""
        broken = [_broken(text) for text in texts]
        docs = []
        for read, _ in broken:
            docs.append(self._words(read))
            if due():
                yield
        entities = yield from self.entities(docs)
        found = []
        for doc, here, (read, cuts) in zip(docs, entities, broken, strict=True):
            named, strange = self._found(doc, read, here)
            if cuts:
                named = [(_before(a, cuts), _before(b, cuts), label) for a, b, label in named]
                strange = [(_before(a, cuts), _before(b, cuts)) for a, b in strange]
            found.append((named, strange))
            if due():
                yield
        return found

    def _words(self, text: str) -> Any:
        """`text` as spaCy makes words of it. In a text it stops remembering how words come apart once
        one was a special case, as most texts have it, so each new one is taken apart alone before.
        """
        tokenizer = self._nlp.tokenizer
        for word in set(text.split()):
            if (name := hash(word)) not in self._split:
                if len(self._split) >= _MOST_SPLIT:
                    self._split.clear()
                self._split.add(name)
                tokenizer(word)
        return self._nlp.make_doc(text)

    def _found(self, doc: Any, text: str, entities: Iterable[Entity]) -> Found:
        words = doc.to_array(["IDX", "LENGTH", "IS_ALPHA", "ORTH"]).tolist()
        named = [
            (words[first][0], words[last - 1][0] + words[last - 1][1], label)
            for first, last, label in entities
            if label in _NAMES
        ]
        strange = [
            (at, at + length)
            for at, length, alphabetic, name in words
            if alphabetic
            and length > 2
            and text[at].isupper()
            and self._is_strange(name, text[at : at + length])
        ]
        return named, strange

    def _by_spacy(self, docs: Sequence[Any]) -> Steps[list[list[Entity]]]:
        """What spaCy itself says, in pieces that take some milliseconds."""
        found = []
        for doc in docs:
            here: list[Entity] = []
            for start in range(0, len(doc), _PIECE):
                here += self._piece(doc, start)
                if due():
                    yield
            found.append(here)
        return found

    def _piece(self, doc: Any, start: int) -> Iterator[Entity]:
        """The entities that begin in the words `start` to `start + _PIECE` of `doc`."""
        first = max(0, start - _CONTEXT)
        last = min(len(doc), start + _PIECE + _CONTEXT)
        for entity in self._nlp(doc[first:last].as_doc()).ents:
            if start <= first + entity.start < start + _PIECE:
                yield first + entity.start, first + entity.end, entity.label_

    def _is_strange(self, name: int, word: str) -> bool:
        """Whether a capitalised word is in no vocabulary, in small letters or as it is: mostly a
        name."""
        vectors = self._nlp.vocab.vectors
        return name not in vectors and not self._nlp.vocab.has_vector(word.lower())


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

            names = _Names(spacy.load(place, exclude=_UNUSED))
            names.let_go()
            return names
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
