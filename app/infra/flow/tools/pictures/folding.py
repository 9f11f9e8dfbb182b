"""Which tasks share a box where there are too many for one each. Pure: positions in, groups of positions out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MOST_APART = 20
"""So many of those that are worth a box of their own get one."""
MOST_ROUNDS = 40
MOST_BANDS = 40
"""Where even one box for each layer would be too many, so many are left: a row of hundreds tells nobody anything."""


def fold(ups: Sequence[Sequence[int]], most: int, apart: Iterable[int] = ()) -> list[list[int]]:
    """Group the tasks of a graph so that at most so many groups remain, and no circle arises among them.

    First those go together that have the same neighbours on both sides, then those that stand in a row, again and again; then
    whole layers, the largest first; at last layers that follow one another.

    Args:
        ups: for each position, those that it depends on directly; no cycles.
        most: how many groups there may be.
        apart: positions that should stay alone, as failed tasks; the first 20 of them do, unless whole layers must go together.

    Returns:
        The groups in the order of their first members, each in ascending order.
    """
    alone = frozenset(sorted(apart)[:MOST_APART])
    members: dict[int, list[int]] = {position: [position] for position in range(len(ups))}
    above: dict[int, set[int]] = {position: set(others) for position, others in enumerate(ups)}
    below: dict[int, set[int]] = {position: set() for position in range(len(ups))}
    for position, others in above.items():
        for other in others:
            below[other].add(position)
    for _ in range(MOST_ROUNDS):
        groups = _largest(_alike(above, below, alone) or _rows(above, below, alone), len(members) - most)
        if not groups:
            break
        _join(groups, members, above, below)
    if len(members) > most:
        _join(_layers(above, below, alone, most), members, above, below)
        height = max(layer_numbers(above, below).values()) + 1
        if height > max(MOST_BANDS, len(members) / 2):
            _join(_bands(above, below, min(most, MOST_BANDS)), members, above, below)
    if len(members) > most:
        _join(_bands(above, below, min(most, MOST_BANDS)), members, above, below)
    return sorted((sorted(group) for group in members.values()), key=lambda group: group[0])


def _largest(groups: list[list[int]], surplus: int) -> list[list[int]]:
    """The largest groups, until so many positions fewer remain."""
    found: list[list[int]] = []
    for group in sorted(groups, key=len, reverse=True):
        if surplus <= 0:
            break
        found.append(group)
        surplus -= len(group) - 1
    return found


def _join(
    groups: Iterable[Sequence[int]], members: dict[int, list[int]], above: dict[int, set[int]], below: dict[int, set[int]]
) -> None:
    """Make one of each group: the first member takes the others in. What comes of it is looked up once, not group by group."""
    into = {other: group[0] for group in groups for other in group}
    for other, first in into.items():
        if other != first:
            members[first] += members.pop(other)
    for edges in (above, below):
        joined: dict[int, set[int]] = {position: set() for position in members}
        for position, others in edges.items():
            here = into.get(position, position)
            joined[here].update(into.get(other, other) for other in others)
        for position, others in joined.items():
            others.discard(position)
        edges.clear()
        edges.update(joined)


def _alike(above: dict[int, set[int]], below: dict[int, set[int]], alone: frozenset[int]) -> list[list[int]]:
    """Those with the same neighbours on both sides: none of them can lead to another."""
    found: dict[tuple[frozenset[int], frozenset[int]], list[int]] = {}
    for position in above:
        if position not in alone:
            found.setdefault((frozenset(above[position]), frozenset(below[position])), []).append(position)
    return [group for group in found.values() if len(group) > 1]


def _rows(above: dict[int, set[int]], below: dict[int, set[int]], alone: frozenset[int]) -> list[list[int]]:
    """Those that stand in a row: each has one neighbour before it and is the only one behind that."""

    def after(position: int) -> int | None:
        if len(below[position]) == 1:
            (follower,) = below[position]
            if len(above[follower]) == 1 and follower not in alone:
                return follower
        return None

    inner = {follower for position in above if position not in alone and (follower := after(position)) is not None}
    found: list[list[int]] = []
    for position in above:
        if position not in inner and position not in alone:
            row = [position]
            follower = after(position)
            while follower is not None:
                row.append(follower)
                follower = after(follower)
            if len(row) > 1:
                found.append(row)
    return found


def _layers(above: dict[int, set[int]], below: dict[int, set[int]], alone: frozenset[int], most: int) -> list[list[int]]:
    """As many whole layers as it takes, the largest first."""
    layers: dict[int, list[int]] = {}
    for position, layer in layer_numbers(above, below).items():
        layers.setdefault(layer, []).append(position)
    number = len(above)
    found: list[list[int]] = []
    for group in sorted(layers.values(), key=len, reverse=True):
        if number <= most:
            break
        kept = [position for position in group if position not in alone] if most > 2 * MOST_APART else group
        if len(kept) > 1:
            found.append(kept)
            number -= len(kept) - 1
    return found


def _bands(above: dict[int, set[int]], below: dict[int, set[int]], most: int) -> list[list[int]]:
    """Layers that follow one another, as many in one as it takes; arrows lead from band to band, never back."""
    numbers = layer_numbers(above, below)
    height = max(numbers.values()) + 1
    bands: dict[int, list[int]] = {}
    for position, layer in numbers.items():
        bands.setdefault(layer * most // height, []).append(position)
    return list(bands.values())


def layer_numbers(above: dict[int, set[int]], below: dict[int, set[int]]) -> dict[int, int]:
    """For each position, how many stand on the longest way to it."""
    unmet = {position: len(others) for position, others in above.items()}
    numbers = {position: 0 for position, count in unmet.items() if count == 0}
    order = list(numbers)
    for position in order:  # grows while it is walked
        for follower in below[position]:
            numbers[follower] = max(numbers.get(follower, 0), numbers[position] + 1)
            unmet[follower] -= 1
            if unmet[follower] == 0:
                order.append(follower)
    return numbers
