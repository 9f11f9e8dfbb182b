"""Draws together what straight arrows have pulled apart: dense pictures, where straightness takes too much room. Pure.

Each layer in turn moves to the weighted means of its neighbours, as near as its order and the room between allow: a weighted
isotonic regression, by pooling those that would collide (Barlow et al., 1972). The weights are those of Gansner, Koutsofios,
North and Vo, "A Technique for Drawing Directed Graphs" (IEEE TSE 19, 1993): what passes several layers stays nearly straight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

LOOSE = 1.5
"""So many times as broad as its fullest layer needs to be, a picture is drawn together."""
SPARE = 300.0
"""What is not broader by more than this stays as it is."""
ROUNDS = 16


def compacted(
    layers: Sequence[Sequence[int]],
    ups: Sequence[Sequence[int]],
    downs: Sequence[Sequence[int]],
    boxes: int,
    centre: Sequence[float],
    apart: Callable[[int, int], float],
) -> list[float]:
    """The middle of each position, across the direction in which layers follow one another.

    Args:
        layers: positions in their order.
        ups: of each position, its neighbours in the layer before.
        downs: of each position, its neighbours in the layer behind.
        boxes: how many positions are boxes; those behind them are lanes.
        centre: where they stand so far.
        apart: how far the middles of two that stand side by side must be from one another.
    """
    place = list(centre)
    there = [position for layer in layers for position in layer]
    if not there:
        return place
    low, high = min(place[position] for position in there), max(place[position] for position in there)
    rooms = [[0.0, *(apart(left, right) for left, right in pairwise(layer))] for layer in layers]
    need = max(sum(room) for room in rooms)
    if high - low <= max(LOOSE * need, need + SPARE):
        return place
    scale = 1.1 * need / (high - low)
    for position in there:
        place[position] = (place[position] - low) * scale
    near: list[list[tuple[int, float]]] = [
        [(other, _weight(position >= boxes, other >= boxes)) for other in (*before, *behind)]
        for position, (before, behind) in enumerate(zip(ups, downs))
    ]
    numbered = list(enumerate(layers))
    for turn in range(ROUNDS):
        for number, layer in numbered if turn % 2 == 0 else reversed(numbered):
            wanted: list[float] = []
            weights: list[float] = []
            for position in layer:
                whole = sum(weight for _, weight in near[position]) or 0.01
                mean = sum(place[other] * weight for other, weight in near[position]) / whole
                wanted.append(mean if near[position] else place[position])
                weights.append(whole)
            for position, found in zip(layer, pooled(wanted, weights, rooms[number])):
                place[position] = found
    return place


def _weight(lane: bool, other: bool) -> float:
    return 8.0 if lane and other else 2.0 if lane or other else 1.0


def pooled(wanted: Sequence[float], weights: Sequence[float], rooms: Sequence[float]) -> list[float]:
    """As near to what is wanted as may be, each at least its room behind the one before it."""
    pools: list[tuple[float, float, int]] = []  # the mean, its weight, and of how many
    offset, offsets = 0.0, list[float]()
    for value, weight, room in zip(wanted, weights, rooms):
        offset += room
        offsets.append(offset)
        mean, whole, number = value - offset, weight, 1
        while pools and pools[-1][0] >= mean:
            before, lighter, fewer = pools.pop()
            mean = (mean * whole + before * lighter) / (whole + lighter)
            whole, number = whole + lighter, number + fewer
        pools.append((mean, whole, number))
    means = [mean for mean, _, number in pools for _ in range(number)]
    return [mean + offset for mean, offset in zip(means, offsets)]
