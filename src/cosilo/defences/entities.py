"""Named entities by a spaCy model, read without spaCy's parser.

    words ─▶ one vector each (their own, and four words around them) ─▶ the entities, from left to right

spaCy asks its model once for every word what to do with it, each time with a matrix of one row: two
thirds of its time. Outside of an entity the answer depends on that word alone, so here all words are
asked at once, and only the words inside of an entity one by one. The numbers are those of spaCy's
own model (hash embeddings, a convolution, and a transition-based parser: Honnibal et al.,
https://spacy.io/api/architectures).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cosilo.defences.detection import Steps, due, run

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Entity = tuple[int, int, str]
"""From which word of a text to which (exclusive), and the label."""

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "1")
"""What the environment of a process says in which matrices are to be multiplied by one thread."""

_BLOCK = 512  # words that are read at once: some milliseconds
_FEW = 200  # words; among fewer it costs more to look for those that are read already
_EPSILON = np.float32(1e-8)
_TRIED = (
    "Ada Lovelace met Charles Babbage in London on 5 June 1833.\n\nThey worked at Acme Corp., Inc.",
    "her  brother  José Müller-Lüdenscheidt lives in São Paulo, and flew to New York City for $ 5,000",
    "Dear Dr. O'Neil,\n  the patient (Kim, 47) was seen by the World Health Organization.\n\n",
    "Paris",
    "x = 12 # nothing",
    "the President of the United States of America, Washington",
)
"""Texts in which the model must find here what it finds in spaCy."""


class UnknownModelError(Exception):
    """The pipeline's model of entities is built in another way than is known here."""


@dataclass(frozen=True)
class _Maxout:
    """A layer: the largest of some linear functions, then normalised."""

    weights: Floats  # inputs × (pieces · outputs)
    bias: Floats
    pieces: int
    scale: Floats
    shift: Floats

    def __call__(self, inputs: Floats, times: Callable[[Floats, Floats], Floats]) -> Floats:
        return self.rest(times(inputs, self.weights))

    def rest(self, made: Floats) -> Floats:
        """What the layer says where `made` is the product of its inputs and weights."""
        made += self.bias
        out = _largest(made, self.pieces)
        width = out.shape[1]
        out -= out @ np.full((width, 1), 1 / width, np.float32)
        spread = np.einsum("ij,ij->i", out, out)
        spread /= width
        spread += _EPSILON
        out /= np.sqrt(spread)[:, None]
        out *= self.scale
        out += self.shift
        return out


def _largest(made: Floats, pieces: int) -> Floats:
    width = made.shape[-1] // pieces
    if pieces == 1:
        return made
    out = np.maximum(made[..., :width], made[..., width : 2 * width])
    for piece in range(2, pieces):
        np.maximum(out, made[..., piece * width : (piece + 1) * width], out=out)
    return out


class EntityReader:
    """The entities that the pipeline `nlp` finds.

    Raises:
        UnknownModelError: its model is another one, or finds something else here than in spaCy.
    """

    def __init__(self, nlp: Any) -> None:
        try:
            self._take(nlp)
            for text in _TRIED:
                self._compare(nlp, text)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise UnknownModelError from error

    def _take(self, nlp: Any) -> None:
        """The numbers of the model."""
        ner = nlp.get_pipe("ner")
        model = ner.model
        self._ops = model.ops
        self._times = _product(model.ops)
        vector, lower, upper = (model.get_ref(name) for name in ("tok2vec", "lower", "upper"))
        nodes = list(vector.walk(order="dfs_pre"))

        def named(name: str) -> list[Any]:
            return [node for node in nodes if node.name == name]

        (features,) = named("extract_features")
        self._columns = list(features.attrs["columns"])
        tables = [(e.get_param("E"), e.attrs["seed"]) for e in named("hashembed")]
        (static,) = named("static_vectors")
        vectors = nlp.vocab.vectors
        _expect(
            str(vectors.mode) == "default"
            and vectors.attr in ("ORTH", 65)
            and len(tables) == len(self._columns)
            and [e.attrs["column"] for e in named("hashembed")] == list(range(len(self._columns)))
            and all(node.attrs["window_size"] == 1 for node in named("expand_window"))
            and not model.attrs["unseen_classes"]
            and model.attrs["has_upper"]
            and ner.cfg["beam_width"] == 1
            and lower.get_dim("nF") == 3
        )
        norms = named("layernorm")
        layers = [_maxout(node, norm) for node, norm in zip(named("maxout"), norms, strict=True)]
        self._mix, self._around = layers[0], layers[1:]
        _expect(len(named("expand_window")) == len(self._around))
        # The first layer is linear but for what follows, so it is done for all there is in the tables.
        widths = [table.shape[1] for table, _ in tables]
        *own, known = np.split(self._mix.weights, np.cumsum(widths))
        self._tables = [
            (table @ part, seed) for (table, seed), part in zip(tables, own, strict=True)
        ]
        of_known = vectors.data @ (static.get_param("W").T @ known)
        self._known = np.concatenate([of_known, np.zeros_like(of_known[:1])])  # -1: in no table
        self._row_of = vectors.key2row
        (linear,) = named("linear")
        pieces = lower.get_dim("nP")
        weights = lower.get_param("W").transpose(0, 2, 1, 3)  # feature, piece, output, input
        weights = weights.reshape(3, -1, weights.shape[-1])
        self._pieces = pieces
        inner, offset = linear.get_param("W"), linear.get_param("b")
        self._first, self._begin, self._before = (
            np.ascontiguousarray((own @ inner).T) for own in weights
        )
        offsets = [own @ offset for own in weights]
        absent = lower.get_param("pad")[0].transpose(0, 2, 1).reshape(3, -1)
        bias = lower.get_param("b").T.reshape(-1)
        self._outside = bias + offsets[0] + absent[1] + absent[2]
        self._inside = offsets[1] + offsets[2] - absent[1] - absent[2]  # more than outside
        names = [ner.moves.get_class_name(i) for i in range(ner.moves.n_moves)]
        _expect(len(names) == len(upper.get_param("b")))
        self._actions(names, upper.get_param("W"), upper.get_param("b"))

    def _actions(self, names: Sequence[str], weights: Floats, bias: Floats) -> None:
        """What can be done outside of an entity, and for each label what can be done in one."""
        free = [i for i, name in enumerate(names) if name[0] in "BUO" and name != "U-"]
        self._open = np.array([names[i][0] == "B" for i in free])
        self._said = [names[i] for i in free]
        self._free, self._free_bias = np.ascontiguousarray(weights[free].T), bias[free]
        self._nothing = self._said.index("O")
        self._going: dict[str, tuple[Floats, Floats]] = {}
        for name in self._said:
            if name[0] == "B":
                both = [names.index(f"{letter}-{name[2:]}") for letter in "IL"]
                _expect(both[0] < both[1])
                self._going[name[2:]] = weights[both], bias[both]

    def _compare(self, nlp: Any, text: str) -> None:
        doc = nlp.make_doc(text)
        (here,) = run(self.entities([doc]))
        _expect(here == [(e.start, e.end, e.label_) for e in nlp(doc).ents])

    def entities(self, docs: Sequence[Any]) -> Steps[list[list[Entity]]]:
        """The entities of each of `docs`, which spaCy has made words of."""
        keys: list[npt.NDArray[np.uint64]] = []
        begins = []
        around = len(self._around)
        at = around
        words = 0
        for doc in docs:
            keys.append(doc.to_array([*self._columns, "ORTH", "IS_SPACE"]))
            begins.append(at)
            at += len(doc) + around
            words += len(doc)
            if words > _BLOCK and due():
                yield
                words = 0
        if not docs:
            return []
        features = np.concatenate(keys)
        places = np.concatenate(
            [np.arange(b, b + len(doc)) for b, doc in zip(begins, docs, strict=True)]
        )
        which = np.zeros(at, np.int64)  # which row of what is read each place has; 0 between texts
        firsts, which[places] = _equal_rows(features)
        which[places] += 1
        read = np.zeros((len(firsts) + 1, self._mix.scale.size), np.float32)
        for start in range(0, len(firsts), _BLOCK):
            end = start + _BLOCK
            read[1 + start : 1 + end] = self._embedded(features[firsts[start:end]])
            if due():
                yield
        for layer in self._around:
            three, which = _threes(which, len(read))
            before, read = read, np.empty((len(three), read.shape[1]), np.float32)
            for start in range(0, len(three), _BLOCK):
                some = before[three[start : start + _BLOCK]]
                made = layer(some.reshape(len(some), -1), self._times)
                np.add(some[:, 1], made, out=read[start : start + _BLOCK])
                if due():
                    yield
        actions = np.empty(len(read), np.int64)
        first = np.empty((len(read), self._first.shape[1]), np.float32)
        for start in range(0, len(read), _BLOCK):
            end = start + _BLOCK
            first[start:end] = self._times(read[start:end], self._first)
            first[start:end] += self._outside
            scores = self._times(_largest(first[start:end], self._pieces), self._free)
            actions[start:end] = np.argmax(scores + self._free_bias, axis=1)
            if due():
                yield
        actions = actions[which]
        spaces = np.ones(at, bool)
        spaces[places] = features[:, -1] > 0
        actions[spaces] = self._nothing
        found = []
        for begin, doc in zip(begins, docs, strict=True):
            end = begin + len(doc)
            here = self._walk(actions[begin:end], which[begin:end], first, read)
            found.append(list(here))
            if due():
                yield
        return found

    def _embedded(self, features: npt.NDArray[np.uint64]) -> Floats:
        """A vector for each word by itself."""
        row_of = self._row_of
        made = self._known[[row_of.get(key, -1) for key in features[:, -2].tolist()]]
        for column, (table, seed) in enumerate(self._tables):
            ids = np.ascontiguousarray(features[:, column])
            made += self._ops.gather_add(table, self._ops.hash(ids, seed) % len(table))
        return self._mix.rest(made)

    def _walk(self, actions: Ints, which: Ints, first: Floats, read: Floats) -> Iterator[Entity]:
        """The entities of the words of one text, of which word i has the row `which[i]`."""
        at = 0
        for place in np.flatnonzero(actions != self._nothing).tolist():
            if place < at:
                continue  # it is in the entity before
            action = self._said[actions[place]]
            if action[0] == "B" and place + 1 == len(which):
                action = self._said[self._last(first[which[place]])]
                if action == "O":
                    continue
            at = place + 1
            if action[0] == "B":
                at = place + self._length(first, read, which[place:], action[2:])
            yield place, at, action[2:]

    def _last(self, first: Floats) -> int:
        """What is done with the last word of a text, where no entity of several words can begin."""
        scores = _largest(first, self._pieces) @ self._free + self._free_bias
        scores[self._open] = -np.inf
        return int(scores.argmax())

    def _length(self, first: Floats, read: Floats, which: Ints, label: str) -> int:
        """How many words has the entity that begins with the first of `which`, up to a text's end."""
        weights, bias = self._going[label]
        begun = read[which[0]] @ self._begin + self._inside
        for place in range(1, len(which) - 1):
            before = read[which[place - 1]] @ self._before
            hidden = _largest(first[which[place]] + begun + before, self._pieces)
            inner, last = weights @ hidden + bias
            if last > inner:
                return place + 1
        return len(which)


def _equal_rows(rows: npt.NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """Where each of the different `rows` stands first, and which of those each one is."""
    if len(rows) >= _FEW:
        factors = np.random.default_rng(0).integers(1 << 63, size=rows.shape[1], dtype=np.uint64)
        _, first, which = np.unique(
            rows @ (2 * factors + 1), return_index=True, return_inverse=True
        )
        if np.array_equal(rows, rows[first[which]]):
            return first, which
    every = np.arange(len(rows))
    return every, every


def _threes(which: Ints, count: int) -> tuple[Ints, Ints]:
    """The different neighbours (before, itself, after) that there are among `which` of `count` rows,
    and which of them each place has: a word that stands between the same words is read once.
    """
    around = np.concatenate(([0], which, [0]))
    three = np.stack((around[:-2], which, around[2:]), axis=1)
    if len(which) < _FEW:
        return three, np.arange(len(which))
    keys = (three[:, 0] * count + three[:, 1]) * count + three[:, 2]
    _, first, places = np.unique(keys, return_index=True, return_inverse=True)
    return three[first], places


def _product(ops: Any) -> Callable[[Floats, Floats], Floats]:
    """The product of matrices. numpy's is the quickest where it uses one thread; several wait for each
    other at full load.
    """
    if os.environ.get(ONE_THREAD[0]) == ONE_THREAD[1]:
        return np.matmul
    gemm: Callable[[Floats, Floats], Floats] = ops.gemm
    return gemm


def _maxout(node: Any, norm: Any) -> _Maxout:
    weights, bias = node.get_param("W"), node.get_param("b")  # output, piece, input
    outputs, pieces, inputs = weights.shape
    return _Maxout(
        np.ascontiguousarray(weights.transpose(2, 1, 0).reshape(inputs, pieces * outputs)),
        np.ascontiguousarray(bias.T.reshape(-1)),
        pieces,
        norm.get_param("G"),
        norm.get_param("b"),
    )


def _expect(right: bool) -> None:
    if not right:
        raise ValueError("another model")
