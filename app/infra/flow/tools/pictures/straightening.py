"""Where in its layer each box stands, so that long arrows are straight and boxes stand in the middle of their neighbours. Pure.

After Brandes and Köpf, "Fast and Simple Horizontal Coordinate Assignment" (Graph Drawing 2001): four alignments, each from
another corner, and of each position the mean of the two in the middle.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from .compacting import compacted


def straightened(
    layers: Sequence[Sequence[int]],
    ups: Sequence[Sequence[int]],
    downs: Sequence[Sequence[int]],
    boxes: int,
    breadths: Sequence[float],
    beside: float,
    lane: float,
) -> list[float]:
    """The middle of each position, across the direction in which layers follow one another.

    Args:
        layers: positions in their order.
        ups: of each position, its neighbours in the layer before.
        downs: of each position, its neighbours in the layer behind.
        boxes: how many positions are boxes; those behind them are lanes, by which long arrows pass a layer.
        breadths: how much room each takes.
        beside: the room between two boxes.
        lane: the room on both sides of a lane.
    """
    conflicts = _conflicts(layers, ups, downs, boxes)

    def apart(left: int, right: int) -> float:
        gap = beside if left < boxes and right < boxes else lane
        return (breadths[left] + breadths[right]) / 2 + gap

    found: list[list[float]] = []
    for upwards in (False, True):
        rows = layers[::-1] if upwards else layers
        before = downs if upwards else ups
        for mirrored in (False, True):
            turned = [row[::-1] for row in rows] if mirrored else rows
            places = _compacted(turned, _aligned(turned, before, conflicts), apart)
            found.append([-place for place in places] if mirrored else places)
    return compacted(layers, ups, downs, boxes, _balanced(found, layers, breadths), apart)


def _conflicts(
    layers: Sequence[Sequence[int]], ups: Sequence[Sequence[int]], downs: Sequence[Sequence[int]], boxes: int
) -> set[tuple[int, int]]:
    """The steps that cross one from lane to lane, or share an end with it: that one stays straight, they do not."""
    found: set[tuple[int, int]] = set()
    for position in range(boxes, len(ups)):
        if any(other >= boxes for other in ups[position]):
            found.update((other, position) for other in ups[position] if other < boxes)
        if any(other >= boxes for other in downs[position]):
            found.update((position, other) for other in downs[position] if other < boxes)
    for before, layer in itertools.pairwise(layers):
        place = {position: index for index, position in enumerate(before)}
        low, scanned = 0, 0
        for index, position in enumerate(layer):
            inner = next((other for other in ups[position] if other >= boxes), None) if position >= boxes else None
            if inner is None and index < len(layer) - 1:
                continue
            high = len(before) if inner is None else place[inner]
            for other in layer[scanned : index + 1]:
                for up in ups[other]:
                    if not low <= place[up] <= high and not (up >= boxes and other >= boxes):
                        found.add((up, other))
            low, scanned = high, index + 1
    return found


def _aligned(layers: Sequence[Sequence[int]], before: Sequence[Sequence[int]], conflicts: set[tuple[int, int]]) -> list[int]:
    """Chains of positions that stand straight behind one another: the head of each position's."""
    root = list(range(len(before)))
    align = list(range(len(before)))
    for fixed, layer in itertools.pairwise(layers):
        place = {position: index for index, position in enumerate(fixed)}
        last = -1
        for position in layer:
            others = sorted(before[position], key=place.__getitem__)
            if not others:
                continue
            middle = (len(others) - 1) / 2
            for other in others[int(middle) : int(middle + 0.5) + 1]:
                crossing = (other, position) in conflicts or (position, other) in conflicts
                if align[position] == position and last < place[other] and not crossing:
                    align[other] = position
                    align[position] = root[position] = root[other]
                    last = place[other]
    return root


def _compacted(layers: Sequence[Sequence[int]], root: list[int], apart: Callable[[int, int], float]) -> list[float]:
    """As close together as may be, chain by chain: first to the one side, then back to what follows."""
    steps: dict[tuple[int, int], float] = {}
    for layer in layers:
        for left, right in itertools.pairwise(layer):
            step = (root[left], root[right])
            steps[step] = max(steps.get(step, 0.0), apart(left, right))
    heads = sorted({root[position] for layer in layers for position in layer})
    following: dict[int, list[tuple[int, float]]] = {head: [] for head in heads}
    unmet = dict.fromkeys(heads, 0)
    for (left, right), room in steps.items():
        following[left].append((right, room))
        unmet[right] += 1
    place = dict.fromkeys(heads, 0.0)
    order = [head for head in heads if not unmet[head]]
    for head in order:  # grows while it is walked
        for right, room in following[head]:
            place[right] = max(place[right], place[head] + room)
            unmet[right] -= 1
            if not unmet[right]:
                order.append(right)
    for head in reversed(order):
        if following[head]:
            place[head] = max(place[head], min(place[right] - room for right, room in following[head]))
    return [place.get(head, 0.0) for head in root]


def _balanced(found: list[list[float]], layers: Sequence[Sequence[int]], breadths: Sequence[float]) -> list[float]:
    there = [position for layer in layers for position in layer]
    if not there:
        return found[0]

    def span(places: list[float]) -> tuple[float, float]:
        return (
            min(places[position] - breadths[position] / 2 for position in there),
            max(places[position] + breadths[position] / 2 for position in there),
        )

    spans = [span(places) for places in found]
    narrowest = min(spans, key=lambda ends: ends[1] - ends[0])
    moved: list[list[float]] = []
    for number, (places, ends) in enumerate(zip(found, spans)):
        side = number % 2  # mirrored ones lean to the other side
        shift = narrowest[side] - ends[side]
        moved.append([place + shift for place in places])
    result: list[float] = []
    for four in zip(*moved):
        middle = sorted(four)
        result.append((middle[1] + middle[2]) / 2)
    return result
