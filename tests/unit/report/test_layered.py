"""Boxes in layers: none covers another, and no edge runs through one that it does not end at."""

from __future__ import annotations

import random

import pytest

from cosilo.report.layered import HIGH, WIDE, Layered, layered


def random_graph(seed: int) -> tuple[list[int], list[tuple[int, int]]]:
    rng = random.Random(seed)
    layers = sorted(rng.randrange(5) for _ in range(rng.randrange(1, 30)))
    pairs = [
        (a, b) for a in range(len(layers)) for b in range(len(layers)) if layers[a] < layers[b]
    ]
    return layers, rng.sample(pairs, min(len(pairs), 40))


def overlap(plan: Layered, a: int, b: int) -> bool:
    (ax, ay), (bx, by) = plan.boxes[a], plan.boxes[b]
    return abs(ax - bx) < WIDE and abs(ay - by) < HIGH


@pytest.mark.parametrize("seed", range(20))
def test_no_box_covers_another_and_no_lane_runs_through_one(seed: int) -> None:
    layers, edges = random_graph(seed)
    plan = layered(layers, edges)
    boxes = range(len(layers))
    assert not [(a, b) for a in boxes for b in boxes if a < b and overlap(plan, a, b)]
    for x, y in plan.boxes:
        assert x >= 0
        assert y >= 0
        assert x + WIDE <= plan.width
        assert y + HIGH <= plan.height
    for way in plan.edges:
        for x, y in way[1:-1]:  # where it enters or leaves a lane
            for left, top in plan.boxes:
                assert not (left <= x <= left + WIDE and top < y < top + HIGH)


@pytest.mark.parametrize("seed", range(20))
def test_every_edge_goes_from_its_box_to_its_box_and_rightwards(seed: int) -> None:
    layers, edges = random_graph(seed)
    plan = layered(layers, edges)
    for (a, b), way in zip(edges, plan.edges, strict=True):
        assert way[0] == (plan.boxes[a][0] + WIDE, plan.boxes[a][1] + HIGH / 2)
        assert way[-1] == (plan.boxes[b][0], plan.boxes[b][1] + HIGH / 2)
        assert [x for x, _ in way] == sorted({x for x, _ in way})
        assert len(way) == 2 * (layers[b] - layers[a])


def test_edges_that_need_not_cross_do_not() -> None:
    plan = layered([0, 0, 0, 1, 1, 1], [(0, 5), (1, 4), (2, 3)])
    heights = [(way[0][1], way[-1][1]) for way in plan.edges]
    assert sorted(heights) == sorted(heights, key=lambda h: h[1])


def test_nothing_is_an_empty_picture() -> None:
    assert layered([], []).boxes == ()
