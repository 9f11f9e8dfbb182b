"""Where the boxes of a picture stand, and which way its arrows take: in layers, with few crossings and straight long arrows.

Pure: a picture in, coordinates out. After Sugiyama, Tagawa and Toda (IEEE SMC 11, 1981). Nothing here recurses: a nested flow is
laid out before the box that it stands in.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from .lettering import text_width
from .model import Box, Picture
from .ordering import order_layers
from .straightening import straightened

LABEL_SIZE, DETAIL_SIZE, HEADING_SIZE = 13.0, 11.0, 12.0
NARROWEST, WIDEST = 84.0, 260.0
LOW, HIGH = 30.0, 44.0
"""How high a box is, without a line of details and with one."""
SIDE = 12.0
MARGIN = 16.0
HEADING = 26.0
"""The head of an opened nested flow's box."""
BESIDE = 14.0
"""Between boxes of one layer; between arrows, and boxes, that pass there, see `LANE`."""
LANE = 10.0
NEXT = 46.0
"""Between layers, at least."""
LONGEST = 2200.0
"""A picture from left to right that would be longer is drawn from top to bottom, if it is smaller then."""
WIDE_FAN = 8
"""So many arrows that part, or join, run along a common rail where they would be steep."""
MOST_TRACKS = 3
"""So many such rails there may be side by side, on each side of the room between two layers."""
MOST_LANES = 6000
"""Beyond this, long arrows go the direct way, through whatever stands there."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """Where a box stands: its upper left corner and its size."""

    box: Box
    x: float
    y: float
    width: float
    height: float
    inside: Layout | None = None
    """What is in an opened nested flow, placed within this box's corner."""


@dataclass(frozen=True)
class Route:
    """The way of an arrow: from point to point, by turns in a curve between two layers and straight past a layer."""

    source: str
    target: str
    mapped: bool
    points: tuple[Point, ...]
    turns: tuple[float | None, ...] = ()
    """For each curve, where between the layers it runs along with others of a wide fan, instead of a way of its own."""


@dataclass(frozen=True)
class Layout:
    """A picture with coordinates, from (0, 0) on."""

    picture: Picture
    width: float
    height: float
    direction: str
    """`LR`: layers follow one another from left to right, or `TB`: from top to bottom."""
    places: tuple[Place, ...]
    routes: tuple[Route, ...]


def layout_of(picture: Picture, direction: str | None = None) -> Layout:
    """Lay a picture out.

    Args:
        picture: what is to be seen; its arrows form no circle.
        direction: `LR` or `TB`; by default from left to right, and from top to bottom what would become too long.
    """
    found = [picture]
    for outer in found:  # grows while it is walked
        found += [box.inside for box in outer.boxes if box.inside is not None]
    done: dict[int, Layout] = {}
    for one in reversed(found):
        done[id(one)] = _laid(one, direction, done)
    return done[id(picture)]


def _laid(picture: Picture, direction: str | None, done: Mapping[int, Layout]) -> Layout:
    sizes = [_size(box, done) for box in picture.boxes]
    positions = {box.key: position for position, box in enumerate(picture.boxes)}
    edges = [(positions[arrow.source], positions[arrow.target]) for arrow in picture.arrows]
    if direction is not None:
        return _placed(picture, sizes if direction == "LR" else _alike(picture, sizes), edges, direction, done)
    level = _placed(picture, list(sizes), edges, "LR", done)
    if level.width <= max(LONGEST, level.height * 1.6):
        return level
    upright = _placed(picture, _alike(picture, sizes), edges, "TB", done)
    return upright if upright.width < 0.7 * level.width else level


def _size(box: Box, done: Mapping[int, Layout]) -> Point:
    if box.inside is not None:
        inner = done[id(box.inside)]
        heading = text_width(heading_of(box), HEADING_SIZE) + 2 * SIDE + 24
        return max(inner.width, min(heading, 2 * WIDEST)), inner.height + HEADING
    wanted = max(text_width(box.label, LABEL_SIZE) + 20, text_width(box.detail, DETAIL_SIZE)) + 2 * SIDE
    return min(WIDEST, max(NARROWEST, wanted + 1)), HIGH if box.detail else LOW


def _alike(picture: Picture, sizes: list[Point]) -> list[Point]:
    """From top to bottom, boxes of nearly the same width get the same, so that they make a column."""
    closed = [size[0] for box, size in zip(picture.boxes, sizes) if box.inside is None]
    widest = max(closed, default=0.0)
    if widest > 1.5 * min(closed, default=0.0):
        return list(sizes)
    return [(widest, size[1]) if box.inside is None else size for box, size in zip(picture.boxes, sizes)]


def heading_of(box: Box) -> str:
    """What stands at the head of an opened nested flow."""
    return f"{box.label} · {box.detail}" if box.detail else box.label


class _Web:
    """The boxes and, where an arrow passes a layer, a lane there: numbered on behind the boxes.

    Long arrows of one source share their lanes, or those to one target: a fan of 100 tasks takes one lane, not 100.
    """

    def __init__(self, number: int, edges: list[tuple[int, int]], layer_of: list[int]) -> None:
        self.number = number
        self.layer_of = list(layer_of)
        self.ways: list[list[int]] = []
        """For each edge, what it passes, both ends included."""
        outgoing, incoming = [0] * number, [0] * number
        lengths = [layer_of[target] - layer_of[source] for source, target in edges]
        for (source, target), length in zip(edges, lengths):
            if length > 1:
                outgoing[source] += 1
                incoming[target] += 1
        lanes: dict[tuple[bool, int, int], int] = {}
        budget = MOST_LANES
        steps: dict[tuple[int, int], None] = {}
        for (source, target), length in zip(edges, lengths):
            way = [source]
            budget -= length - 1
            if budget > 0 or length < 4:
                shares_source = outgoing[source] >= incoming[target]
                end = source if shares_source else target
                for layer in range(layer_of[source] + 1, layer_of[target]):
                    lane = lanes.setdefault((shares_source, end, layer), len(self.layer_of))
                    if lane == len(self.layer_of):
                        self.layer_of.append(layer)
                    way.append(lane)
                way.append(target)
                steps.update(dict.fromkeys(itertools.pairwise(way)))
            else:
                way.append(target)
            self.ways.append(way)
        total = len(self.layer_of)
        self.ups: list[list[int]] = [[] for _ in range(total)]
        self.downs: list[list[int]] = [[] for _ in range(total)]
        for source, target in steps:
            self.downs[source].append(target)
            self.ups[target].append(source)

    def layers(self, bound: list[int]) -> list[list[int]]:
        """What stands in each layer, boxes (of those given) before lanes."""
        found: list[list[int]] = [[] for _ in range(max((self.layer_of[position] for position in bound), default=-1) + 1)]
        for position in (*bound, *range(self.number, len(self.layer_of))):
            found[self.layer_of[position]].append(position)
        return found


def _placed(
    picture: Picture, sizes: list[Point], edges: list[tuple[int, int]], direction: str, done: Mapping[int, Layout]
) -> Layout:
    flat = direction == "LR"
    number = len(sizes)
    ups: list[list[int]] = [[] for _ in range(number)]
    downs: list[list[int]] = [[] for _ in range(number)]
    for source, target in edges:
        ups[target].append(source)
        downs[source].append(target)
    bound = [position for position in range(number) if ups[position] or downs[position]]
    web = _Web(number, edges, _layers(ups, downs, bound, flat))
    layers = web.layers(bound)
    order_layers(layers, web.ups, web.downs)
    across = [size[1] if flat else size[0] for size in sizes]
    breadths = [*across, *[0.0] * (len(web.layer_of) - number)]
    centre = straightened(layers, web.ups, web.downs, number, breadths, BESIDE, LANE)
    low = min((centre[position] - breadths[position] / 2 for layer in layers for position in layer), default=0.0)
    centre = [place + MARGIN - low for place in centre]
    lengths = [size[0] if flat else size[1] for size in sizes]
    near, far, ends = _along(picture, layers, web, lengths, centre, flat)

    corners: list[Point] = [(0.0, 0.0)] * number
    for position in bound:
        corner = centre[position] - across[position] / 2
        corners[position] = (near[position], corner) if flat else (corner, near[position])
        length = far[position] - near[position]
        sizes[position] = (length, across[position]) if flat else (across[position], length)
    end = max((far[position] for layer in layers for position in layer), default=0.0)
    breadth = max((centre[position] + breadths[position] / 2 for layer in layers for position in layer), default=0.0)
    width, height = (end, breadth) if flat else (breadth, end)
    bound_to = frozenset(bound)
    loose = [position for position in range(number) if position not in bound_to]
    width, height = _grid(loose, sizes, corners, width, height)

    places = tuple(
        Place(box, *corners[position], *sizes[position], None if box.inside is None else done[id(box.inside)])
        for position, box in enumerate(picture.boxes)
    )
    meetings = _meetings(ups, web.layer_of, ends, centre)
    rails = _rails(web, layers, ends, centre, meetings)
    routes: list[Route] = []
    for arrow, way, edge in zip(picture.arrows, web.ways, edges):
        source, target = way[0], way[-1]
        # Straight to where the layer ends, if the box is shorter: something long may stand beside it.
        leaving, arriving = ends[web.layer_of[source]][1], ends[web.layer_of[target]][0]
        points = [(far[source], centre[source])]
        turns: list[float | None] = []
        if leaving > far[source]:
            points += [(leaving, centre[source])] * 2
            turns.append(None)
        if edge in meetings:
            points += [meetings[edge]] * 2
            turns.append(None)
        for step in pairwise(way):
            turns.append(rails.get(step))
            if step[1] != target:
                points += [(near[step[1]], centre[step[1]]), (far[step[1]], centre[step[1]])]
        if arriving < near[target]:
            points += [(arriving, centre[target])] * 2
            turns.append(None)
        points.append((near[target], centre[target]))
        turned = tuple(points) if flat else tuple((y, x) for x, y in points)
        routes.append(Route(arrow.source, arrow.target, arrow.mapped, turned, tuple(turns)))
    return Layout(picture, width + MARGIN, height + MARGIN, direction, places, tuple(routes))


def _along(
    picture: Picture, layers: list[list[int]], web: _Web, lengths: list[float], centre: list[float], flat: bool
) -> tuple[list[float], list[float], list[Point]]:
    """Where each box and lane, and each layer, begins and ends in the direction in which layers follow one another."""
    number = len(lengths)
    near, far = [0.0] * len(web.layer_of), [0.0] * len(web.layer_of)
    ends: list[Point] = []
    start = MARGIN
    for layer in layers:
        boxes = [position for position in layer if position < number]
        length = max((lengths[position] for position in boxes), default=0.0)
        # Side by side, the boxes of a layer are of one length, so that they make a column.
        closed = [position for position in boxes if picture.boxes[position].inside is None]
        common = max((lengths[position] for position in closed), default=0.0)
        for position in layer:
            near[position], far[position] = start, start + length
        for position in boxes:
            own = common if flat and picture.boxes[position].inside is None else lengths[position]
            near[position] = start if flat else start + (length - own) / 2
            far[position] = near[position] + own
        ends.append((start, start + length))
        bends = sum(
            abs(centre[position] - centre[other]) > 1 and len(web.ups[other]) < WIDE_FAN
            for position in layer
            if len(web.downs[position]) < WIDE_FAN
            for other in web.downs[position]
        )
        next_one = NEXT if flat else 0.75 * NEXT
        start += length + min(1.8 * NEXT, next_one + 1.5 * max(0, bends - 4))
    return near, far, ends


def _rails(
    web: _Web,
    layers: list[list[int]],
    ends: list[Point],
    centre: list[float],
    meetings: Mapping[tuple[int, int], Point],
) -> dict[tuple[int, int], float]:
    """Where the arrows of each wide fan run along together: those that part near their ends, those that join near their start.

    Fans that would run over one another get rails side by side; where there is no room for them, they keep to curves.
    """
    found: dict[tuple[int, int], float] = {}
    for layer, (here, there) in enumerate(pairwise(ends)):
        gap = there[0] - here[1]
        for parts in (True, False):
            fans: list[tuple[float, float, list[tuple[int, int]]]] = []
            for position in layers[layer if parts else layer + 1]:
                others = web.downs[position] if parts else web.ups[position]
                steps = [(position, other) if parts else (other, position) for other in others]
                steps = [step for step in steps if step not in found and step not in meetings]
                if len(steps) >= WIDE_FAN:
                    places = [centre[end] for step in steps for end in step]
                    if max(places) - min(places) > 3 * gap:
                        fans.append((min(places), max(places), steps))
            tracks: list[float] = []
            for low, high, steps in sorted(fans):
                track = next((number for number, last in enumerate(tracks) if last + LANE < low), len(tracks))
                if track < MOST_TRACKS:
                    tracks[track : track + 1] = [high]
                    inset = (0.28 + 0.06 * track) * gap
                    found.update(dict.fromkeys(steps, there[0] - inset if parts else here[1] + inset))
    return found


def _meetings(
    ups: list[list[int]],
    layer_of: list[int],
    layer_ends: list[Point],
    centre: list[float],
) -> dict[tuple[int, int], Point]:
    """Where arrows meet on their way, if each of several boxes leads to each of several others: 10 and 10 instead of 100."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, others in enumerate(ups):
        if len(others) >= 3:
            groups.setdefault(tuple(sorted(others)), []).append(position)
    found: dict[tuple[int, int], Point] = {}
    for sources, targets in groups.items():
        if len(targets) >= 3:
            pairs = [(source, target) for source in sources for target in targets if layer_of[target] - layer_of[source] == 1]
            ends = [end for pair in pairs for end in pair]
            if len(pairs) == len(sources) * len(targets):
                after, before = layer_ends[layer_of[sources[0]]][1], layer_ends[layer_of[targets[0]]][0]
                where = sum(centre[end] for end in ends) / len(ends)
                found.update(dict.fromkeys(pairs, ((after + before) / 2, where)))
    return found


def _layers(ups: list[list[int]], downs: list[list[int]], bound: list[int], flat: bool) -> list[int]:
    """In which layer each box stands: behind all that it depends on, and no farther from its followers than it must be.

    Where more boxes than look good have the very same neighbours (a wide fan), they take several layers one after the other.
    """
    layer_of = [0] * len(ups)
    unmet = [len(others) for others in ups]
    order = [position for position in bound if unmet[position] == 0]
    for position in order:  # grows while it is walked
        for follower in downs[position]:
            layer_of[follower] = max(layer_of[follower], layer_of[position] + 1)
            unmet[follower] -= 1
            if unmet[follower] == 0:
                order.append(follower)
    for position in reversed(order):
        if len(downs[position]) > len(ups[position]):
            layer_of[position] = min(layer_of[follower] for follower in downs[position]) - 1
    widest = max(12, int((len(bound) * (3.0 if flat else 0.5)) ** 0.5))
    fans: dict[tuple[int, tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for position in bound:
        fans.setdefault((layer_of[position], tuple(ups[position]), tuple(downs[position])), []).append(position)
    deep: dict[int, int] = {}
    for (layer, *_), fan in fans.items():
        deep[layer] = max(deep.get(layer, 1), -(-len(fan) // widest))
    shift = 0
    moved: dict[int, int] = {}
    for layer in sorted(deep):
        moved[layer] = layer + shift
        shift += deep[layer] - 1
    found = list(layer_of)
    for (layer, *_), fan in fans.items():
        columns = -(-len(fan) // widest)
        height = -(-len(fan) // columns)
        for place, position in enumerate(fan):
            found[position] = moved[layer] + place // height
    return found


def _grid(loose: list[int], sizes: list[Point], corners: list[Point], width: float, height: float) -> Point:
    """Boxes without arrows stand in rows beneath the others. Returns how far all of it reaches then."""
    if not loose:
        return width, height
    column = max(sizes[position][0] for position in loose) + BESIDE
    area = sum((sizes[position][0] + BESIDE) * (sizes[position][1] + BESIDE) for position in loose)
    columns = min(len(loose), max(1, int(max(width - MARGIN, (area * 1.8) ** 0.5) // column)))
    x, y, tallest = MARGIN, height + (NEXT / 2 if height else MARGIN), 0.0
    for place, position in enumerate(loose):
        if place and place % columns == 0:
            x, y, tallest = MARGIN, y + tallest + BESIDE, 0.0
        corners[position] = (x, y)
        tallest = max(tallest, sizes[position][1])
        x += column
    return max(width, MARGIN + columns * column - BESIDE), y + tallest
