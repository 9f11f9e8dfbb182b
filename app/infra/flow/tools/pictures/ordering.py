"""In which order the boxes of each layer stand, so that few arrows cross. Pure, and the same for the same picture.

By barycentres, to and fro, and then by exchanges of neighbours; the best order found is kept.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right, insort

MOST_SWEEPS = 24
ENOUGH = 4
"""So many sweeps that bring nothing end it."""
EXCHANGED = 1500
"""Up to so many boxes and lanes neighbours are exchanged."""


def order_layers(layers: list[list[int]], ups: list[list[int]], downs: list[list[int]]) -> None:
    """Put the positions of each layer in order, in place.

    Args:
        layers: from the first to the last; what they hold is a position in `ups` and `downs`.
        ups: the neighbours in the layer before.
        downs: the neighbours in the layer behind.
    """
    _begin(layers, ups)
    best = crossings(layers, downs)
    kept = [list(layer) for layer in layers]
    without = 0
    for sweep in range(MOST_SWEEPS):
        if best == 0 or without == ENOUGH:
            break
        if sweep % 2:
            _sweep(layers[::-1], downs)
        else:
            _sweep(layers, ups)
        number = crossings(layers, downs)
        without += 1
        if number < best:
            best, kept, without = number, [list(layer) for layer in layers], 0
    layers[:] = kept
    if best and sum(map(len, layers)) <= EXCHANGED:
        _exchange(layers, ups, downs)


def crossings(layers: list[list[int]], downs: list[list[int]]) -> int:
    """How many pairs of arrows cross between neighbouring layers."""
    total = 0
    for layer, following in itertools.pairwise(layers):
        place = {position: index for index, position in enumerate(following)}
        seen: list[int] = []
        for position in layer:
            ends = sorted(place[other] for other in downs[position])
            for end in ends:
                total += len(seen) - bisect_right(seen, end)
            for end in ends:
                insort(seen, end)
    return total


def _begin(layers: list[list[int]], ups: list[list[int]]) -> None:
    """The order of definition, but with what hangs together side by side."""
    for before, layer in itertools.pairwise(layers):
        place = {position: index for index, position in enumerate(before)}
        layer.sort(key=lambda position: min((place[other] for other in ups[position]), default=len(place)))


def _sweep(layers: list[list[int]], before: list[list[int]]) -> None:
    """Move everything to the mean of its neighbours in the layer before; what has none keeps its place."""
    for fixed, layer in itertools.pairwise(layers):
        place = {position: index for index, position in enumerate(fixed)}
        wanted: dict[int, float] = {}
        for index, position in enumerate(layer):
            others = before[position]
            wanted[position] = sum(place[other] for other in others) / len(others) if others else index
        layer.sort(key=wanted.__getitem__)


def _exchange(layers: list[list[int]], ups: list[list[int]], downs: list[list[int]]) -> None:
    places = {position: index for layer in layers for index, position in enumerate(layer)}
    ends = [([places[other] for other in ups[p]], [places[other] for other in downs[p]]) for p in range(len(ups))]

    def gain(left: int, right: int) -> int:
        total = 0
        for side in (0, 1):
            for one in ends[left][side]:
                for other in ends[right][side]:
                    total += (one > other) - (one < other)
        return total

    for _ in range(4):
        better = False
        for layer in layers:
            for position in layer:
                ends[position] = (sorted(places[o] for o in ups[position]), sorted(places[o] for o in downs[position]))
            for index in range(len(layer) - 1):
                left, right = layer[index], layer[index + 1]
                if len(ends[left][0]) * len(ends[right][0]) + len(ends[left][1]) * len(ends[right][1]) > 400:
                    continue
                if gain(left, right) > 0:
                    layer[index], layer[index + 1] = right, left
                    places[left], places[right] = index + 1, index
                    better = True
        if not better:
            break
