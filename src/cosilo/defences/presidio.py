"""Names and places by Presidio over spaCy, and everything that has a form by our own patterns.

Presidio is driven through its `AnalyzerEngine` with an NLP engine that runs nothing but spaCy's named
entities (its own engine also tags, parses and lemmatises, for a context bonus that is not used
here), and with those of its recognisers that know a checksum or a list.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from cosilo.defences.detection import Span
from cosilo.defences.names import listed
from cosilo.defences.patterns import PatternDetector
from cosilo.errors import ConfigError
from cosilo.models import catalog
from cosilo.registry import Loads

# What Presidio calls spaCy's labels, and what we call Presidio's.
_LABELS = {
    "PERSON": "PERSON",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
    "ORG": "ORGANIZATION",
}
KINDS = {
    "PERSON": "PERSON",
    "LOCATION": "PLACE",
    "ORGANIZATION": "ORG",
    "CREDIT_CARD": "CARD",
    "IBAN_CODE": "IBAN",
    "CRYPTO": "WALLET",
    "US_SSN": "SSN",
    "US_ITIN": "SSN",
}
_ENTITIES = sorted(KINDS)
_UNUSED = ["tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer"]


_TITLED = 2_000  # characters of a text without capitals that are read a second time, with them

Analysis = tuple[list[Any], list[tuple[int, int]]]


class PresidioDetector:
    """What Presidio finds, what our patterns find, and capitalised words that no vocabulary knows.

    A short text without capital letters is read a second time as if every word had one.

    Args:
    model: a spaCy pipeline: its name in Cosilo's catalog, or a folder.
    organizations: also report names of organisations.
    """

    def __init__(self, model: str = "en-core-web-md", organizations: bool = True) -> None:
        self._analyze = _analyzer(model)
        self._patterns = PatternDetector()
        self._organizations = organizations

    def detect(self, text: str, public: str = "") -> list[Span]:
        spans = self._patterns.detect(text, public)
        spans += self._entities(text, text)
        titled = text.title() if text == text.lower() and len(text) <= _TITLED else text
        if titled != text and len(titled) == len(text):
            again = self._entities(titled, text)
            spans += [replace(s, score=0.4) for s in again if s.kind in ("PERSON", "PLACE")]
        spans += listed(text, spans)
        return spans

    def _entities(self, read: str, text: str) -> Iterator[Span]:
        found, strange = self._analyze(read)
        for result in found:
            kind = KINDS[result.entity_type]
            words = text[result.start : result.end]
            if kind == "ORG" and (not self._organizations or _acronym(words)):
                continue
            if any(c.isalnum() for c in words):
                yield Span(result.start, result.end, kind, float(result.score))
        if read == text:
            yield from (Span(start, end, "PERSON", 0.35) for start, end in strange)


def _acronym(words: str) -> bool:
    return len(words) <= 5 and words.isalpha() and words.isupper()


def presidio_loads(model: str) -> Loads:
    """What a `PresidioDetector` over `model` loads."""
    packages = ("presidio_analyzer", "spacy")
    return Loads((model,) if model in catalog.entries() else (), packages)


@lru_cache(maxsize=4)
def _analyzer(model: str) -> Callable[[str], Analysis]:
    """The analyzer over `model`, loaded once a process: text → (results, strange words).

    Raises:
        ConfigError: Presidio or spaCy is not installed.
        CatalogError: the model was not pulled.
    """
    try:
        import spacy
        from presidio_analyzer import (
            AnalyzerEngine,
            EntityRecognizer,
            RecognizerRegistry,
            RecognizerResult,
        )
        from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer
        from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine
        from presidio_analyzer.predefined_recognizers import (
            CreditCardRecognizer,
            CryptoRecognizer,
            IbanRecognizer,
            SpacyRecognizer,
            UsItinRecognizer,
            UsSsnRecognizer,
        )
    except ImportError as error:
        raise ConfigError(
            f"the detector 'presidio' needs {error.name}; install it with: pip install 'cosilo[pii]'"
        ) from None
    place = catalog.path(model) if model in catalog.entries() else model

    class EntitiesOnly(NlpEngine):
        """spaCy's named entities, and nothing else of its pipeline."""

        def __init__(self) -> None:
            self.load()

        def load(self) -> None:
            try:
                self._nlp = spacy.load(place, exclude=_UNUSED)
            except OSError:
                raise ConfigError(
                    f"no spaCy pipeline {model!r}: give a name of `cosilo models list`, a folder, or "
                    "an installed pipeline"
                ) from None
            self.strange: list[tuple[int, int]] = []

        def is_loaded(self) -> bool:
            return True

        def process_text(self, text: str, language: str) -> NlpArtifacts:
            doc = self._nlp(text)
            self.strange = [
                (t.idx, t.idx + len(t))
                for t in doc[1:]
                if len(t) > 2 and t.is_alpha and t.text[0].isupper() and self._is_strange(t.text)
            ]
            kept = [e for e in doc.ents if e.label_ in _LABELS]
            for entity in kept:
                entity.label_ = _LABELS[entity.label_]
            return NlpArtifacts(kept, doc, [t.idx for t in doc], [], None, language)

        def _is_strange(self, word: str) -> bool:
            """Whether a word is in no vocabulary, in small letters or as it is: mostly a name."""
            vocab = self._nlp.vocab
            return not (vocab.has_vector(word.lower()) or vocab.has_vector(word))

        def process_batch(
            self,
            texts: Iterable[str],
            language: str,
            batch_size: int = 1,
            n_process: int = 1,
            **_: Any,
        ) -> Iterator[tuple[str, NlpArtifacts]]:
            return ((text, self.process_text(text, language)) for text in texts)

        def is_stopword(self, word: str, language: str) -> bool:
            return False

        def is_punct(self, word: str, language: str) -> bool:
            return False

        def get_supported_entities(self) -> list[str]:
            return _ENTITIES

        def get_supported_languages(self) -> list[str]:
            return ["en"]

    class NoContext(ContextAwareEnhancer):
        """Leaves scores as they are."""

        def __init__(self) -> None:
            super().__init__(0.0, 0.0, 0, 0)

        def enhance_using_context(
            self,
            text: str,
            raw_results: list[RecognizerResult],
            nlp_artifacts: NlpArtifacts,
            recognizers: list[EntityRecognizer],
            context: list[str] | None = None,
        ) -> list[RecognizerResult]:
            return raw_results

    recognizers = [
        SpacyRecognizer(supported_entities=["PERSON", "LOCATION", "ORGANIZATION"]),
        CreditCardRecognizer(),
        IbanRecognizer(),
        CryptoRecognizer(),
        UsSsnRecognizer(),
        UsItinRecognizer(),
    ]
    entities = EntitiesOnly()
    engine = AnalyzerEngine(
        registry=RecognizerRegistry(recognizers=recognizers, supported_languages=["en"]),
        nlp_engine=entities,
        supported_languages=["en"],
        context_aware_enhancer=NoContext(),
    )

    turn = threading.Lock()  # long texts are analysed in a thread; spaCy's pipeline is one

    def analyze(text: str) -> Analysis:
        with turn:
            results = engine.analyze(text, language="en", entities=_ENTITIES)
            return list(results), entities.strange

    return analyze
