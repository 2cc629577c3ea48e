"""What several sequences begin with is computed once, and comes out as in each of them alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cosilo.errors import RejectedError
from cosilo.models.base import Tokens
from cosilo.models.white_box import tree as trees
from cosilo.models.white_box.layers import layers_of
from cosilo.models.white_box.tree import Tree, along, can_be_a_tree
from cosilo.models.white_box.upper import can_be_cut
from white_box import tiny

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time


def sequences(*rows: list[int]) -> list[Tokens]:
    return [Tokens(np.array(row, np.int32), 1, ()) for row in rows]


def test_each_place_is_there_once() -> None:
    tree = Tree.of(sequences([5, 6, 7, 7], [5, 6, 8], [6, 5], [5, 6, 7, 7]))
    assert tree.places.tolist() == [[0, 1, 2, 3], [0, 1, 4, 0], [5, 6, 0, 0], [0, 1, 2, 3]]
    assert tree.positions.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    assert tree.first.tolist() == [0, 1, 2, 3, 6, 8, 9]


def test_states_are_those_of_each_sequence_by_itself() -> None:
    module = tiny(3).module
    layers = len(layers_of(module))
    rng = np.random.default_rng(0)
    for _ in range(8):
        given = sequences(
            *(
                [*range(1, 1 + int(rng.integers(1, 5))), *map(int, rng.integers(1, 4, size=n))]
                for n in rng.integers(1, 7, size=5)
            )
        )
        tree = Tree.of(given)
        assert len(tree.first) == len({tuple(s.ids[: i + 1]) for s in given for i in range(len(s))})
        ids = torch.zeros_like(tree.places)
        for row, s in zip(ids, given, strict=True):
            row[: len(s)] = torch.from_numpy(s.ids.astype(np.int64))
        embedded = module.get_input_embeddings()(ids.flatten()[tree.first])
        with torch.no_grad():
            made = along(module, 0, layers, embedded, tree)
            for row, s in zip(tree.places, given, strict=True):
                alone = Tree.of([s])
                wanted = along(module, 0, layers, embedded[row[: len(s)]], alone)
                torch.testing.assert_close(made[row[: len(s)]], wanted, rtol=1e-4, atol=1e-5)
                whole = module(
                    input_ids=torch.from_numpy(s.ids.astype(np.int64))[None], use_cache=False,
                    output_hidden_states=True,
                )  # fmt: skip
                ended = module.get_decoder().norm(wanted)
                torch.testing.assert_close(ended, whole.hidden_states[-1][0], rtol=1e-4, atol=1e-5)


def test_the_module_stays_as_it_was() -> None:
    module = tiny(3).module
    before = module.config._attn_implementation
    tree = Tree.of(sequences([1, 2]))
    along(module, 0, 1, torch.zeros(2, module.config.hidden_size), tree)
    assert module.config._attn_implementation == before
    assert layers_of(module)[0].self_attn.config is module.config


def test_attention_of_another_kind_is_left_alone_or_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = tiny(3).module
    assert can_be_a_tree(module)
    assert can_be_cut(module)
    module.config._attn_implementation_internal = "eager"
    assert not can_be_a_tree(module)
    assert not can_be_cut(module)
    monkeypatch.setattr(trees, "_attend_otherwise", lambda attention: None)  # asks in its own way
    with pytest.raises(RejectedError, match="attention"):
        along(module, 0, 1, torch.zeros(2, module.config.hidden_size), Tree.of(sequences([1, 2])))
