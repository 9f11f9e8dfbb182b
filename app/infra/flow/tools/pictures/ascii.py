"""A picture as lines of text: one for each box, and rails on the left that lead from task to task, as `git log --graph` has it.

A task with many followers has one rail that they all branch off, and a task with many upstreams one that they all run into.
"""

from __future__ import annotations

from ..terminal import Style, cut, safe, width_of
from .model import Box, Picture

_FINE = "│─├┤╰╯╭╮┴┬┼┆●◆≡…·"
_PLAIN = str.maketrans(_FINE, "|-||`'..+++:*#=.-")

Rail = tuple[str, str]
"""`("from", key)` leads from a box to all that is left of its followers; `("to", key)` collects what leads to a box."""


def ascii_of(picture: Picture, style: Style, *, columns: int = 100) -> str:
    """A picture as lines of text.

    Args:
        picture: what is to be seen.
        style: of the stream that it is for: colours, and whether it has the characters.
        columns: how wide a line may be. Where the rails would take more than half of it, each line names what it comes after.
    """
    fine = style.fitting(_FINE, "") != ""
    levels = [picture]
    for level in levels:  # grows while it is walked
        levels += [box.inside for box in level.boxes if box.inside is not None]
    done: dict[int, list[str]] = {}
    for level in reversed(levels):
        lines = _railed(level, style, columns, done, fine)
        done[id(level)] = _listed(level, style, columns, done, fine) if lines is None else lines
    lines = done[id(picture)]
    if picture.title:
        state = f": {style.state(picture.state)}" if picture.state else ""
        lines = [style.paint(safe(picture.title), "bold") + state, *lines]
    return "".join(f"{line}\n" for line in lines)


def _railed(picture: Picture, style: Style, columns: int, done: dict[int, list[str]], fine: bool) -> list[str] | None:
    """The lines with rails; None where those would be too wide."""
    incoming, outgoing = _rails(picture)
    left: dict[Rail, int] = {}
    for rails in incoming.values():
        for rail in rails:
            left[rail] = left.get(rail, 0) + 1
    lanes: list[Rail | None] = []
    lines: list[str] = []
    for box in _in_order(picture):
        wanted = incoming[box.key]
        entering = [lane for lane, rail in enumerate(lanes) if rail is not None and rail in wanted]
        for rail in wanted:
            left[rail] -= 1
        ending = {lane for lane in entering if left[_known(lanes[lane])] == 0}
        own = min(ending) if ending else _free(lanes, max(entering, default=-1) + 1)
        joints = {lane: _joint(lane, entering, own, lane not in ending) for lane in entering if lane != own}
        sign = _sign(box, style, fine)
        row = _row(lanes, own, joints, own)
        for lane in ending:
            lanes[lane] = None
        if 2 * len(lanes) > columns // 2:
            return None
        lines.append(_line(row, own, sign, box, style, columns, fine))
        leaving, begun = _leave(lanes, outgoing[box.key], own)
        if box.inside is not None:
            before = _row([rail if lane != own else None for lane, rail in enumerate(lanes)], own, {own: "┆"}, None, begun)
            lines += [_plain("".join(before), fine) + " " + line for line in done[id(box.inside)]]
        if set(leaving) - {own}:
            lines.append(_plain("".join(_row(lanes, own, _forks(leaving, begun, own), None)).rstrip(), fine))
        while lanes and lanes[-1] is None:
            lanes.pop()
    return lines


def _rails(picture: Picture) -> tuple[dict[str, set[Rail]], dict[str, list[Rail]]]:
    """By which rails each box is reached, and which it leads to."""
    followers: dict[str, int] = {}
    upstreams: dict[str, int] = {}
    for arrow in picture.arrows:
        followers[arrow.source] = followers.get(arrow.source, 0) + 1
        upstreams[arrow.target] = upstreams.get(arrow.target, 0) + 1
    incoming: dict[str, set[Rail]] = {box.key: set() for box in picture.boxes}
    outgoing: dict[str, list[Rail]] = {box.key: [] for box in picture.boxes}
    for arrow in picture.arrows:
        rail = ("from", arrow.source) if followers[arrow.source] >= upstreams[arrow.target] else ("to", arrow.target)
        incoming[arrow.target].add(rail)
        if rail not in outgoing[arrow.source]:
            outgoing[arrow.source].append(rail)
    return incoming, outgoing


def _in_order(picture: Picture) -> list[Box]:
    """Each box behind those that it depends on, and as soon after them as may be: so rails are short."""
    unmet = {box.key: 0 for box in picture.boxes}
    followers: dict[str, list[str]] = {box.key: [] for box in picture.boxes}
    for arrow in picture.arrows:
        unmet[arrow.target] += 1
        followers[arrow.source].append(arrow.target)
    boxes = {box.key: box for box in picture.boxes}
    ready = [key for key in reversed(boxes) if not unmet[key]]
    order: list[Box] = []
    while ready:
        key = ready.pop()
        order.append(boxes[key])
        for follower in reversed(followers[key]):
            unmet[follower] -= 1
            if not unmet[follower]:
                ready.append(follower)
    return order


def _known(rail: Rail | None) -> Rail:
    assert rail is not None
    return rail


def _free(lanes: list[Rail | None], start: int) -> int:
    for lane in range(start, len(lanes)):
        if lanes[lane] is None:
            return lane
    lanes.append(None)
    return len(lanes) - 1


def _leave(lanes: list[Rail | None], rails: list[Rail], own: int) -> tuple[list[int], set[int]]:
    """Give each rail that leaves a box a lane. Returns the lanes, and which of them begin here."""
    leaving: list[int] = []
    begun: set[int] = set()
    for rail in rails:
        if rail in lanes:
            lane = lanes.index(rail)
        else:
            lane = own if lanes[own] is None else _free(lanes, 0)
            lanes[lane] = rail
            begun.add(lane)
        leaving.append(lane)
    return leaving, begun


def _joint(lane: int, entering: list[int], own: int, goes_on: bool) -> str:
    """How a rail that leads to a box leaves its lane."""
    if lane < own:
        outermost = lane == min(entering)
        return ("├" if goes_on else "╰") if outermost else ("┼" if goes_on else "┴")
    outermost = lane == max(entering)
    return ("┤" if goes_on else "╯") if outermost else ("┼" if goes_on else "┴")


def _forks(leaving: list[int], begun: set[int], own: int) -> dict[int, str]:
    """How what leaves a box reaches its lanes, and how it leaves that of the box."""
    low, high = min((*leaving, own)), max((*leaving, own))
    found: dict[int, str] = {}
    for lane in leaving:
        if lane != own:
            if lane in begun:
                found[lane] = "╭" if lane == low else "╮" if lane == high else "┬"
            else:
                found[lane] = "├" if lane == low else "┤" if lane == high else "┼"
    both = low < own < high
    if own in leaving:
        found[own] = "┼" if both else "├" if own == low else "┤"
    else:
        found[own] = "┴" if both else "╰" if own == low else "╯"
    return found


def _row(
    lanes: list[Rail | None], own: int, joints: dict[int, str], node: int | None, absent: set[int] | None = None
) -> list[str]:
    """A line of rails, two characters for each lane; those between the joints and the box are joined."""
    ends = [*joints, own] if node is not None or joints else [own]
    low, high = min(ends), max(ends)
    row: list[str] = []
    for lane, rail in enumerate(lanes):
        inner = low <= lane <= high and high > low
        if lane in joints:
            character = joints[lane]
        elif lane == node:
            character = "●"
        elif rail is not None and (absent is None or lane not in absent):
            character = "│"
        else:
            character = "─" if inner else " "
        row += [character, "─" if inner and lane < high else " "]
    return row


def _line(row: list[str], own: int, sign: str, box: Box, style: Style, columns: int, fine: bool) -> str:
    text = "".join(row).rstrip()
    place = 2 * own
    room = columns - len(text) - 1
    return f"{_plain(text[:place], fine)}{sign}{_plain(text[place + 1 :], fine)} {_words(box, style, room, fine)}"


def _words(box: Box, style: Style, room: int, fine: bool) -> str:
    """What a line says of its box: label, details and state, as far as there is room."""
    label = cut(safe(box.label), max(8, room))
    room -= width_of(label)
    words = style.state(box.state, label) if box.state in ("failed", "cancelled", "skipped") else label
    told = [box.detail] if box.detail else []
    if box.state is not None and box.state != "success":
        told.append(box.state)
    if told and room > 6:
        words += "  " + style.paint(_plain(cut(safe(" · ".join(told)), room - 2), fine), "dim")
    return words if fine else _plain(words, fine)


def _sign(box: Box, style: Style, fine: bool) -> str:
    if box.state is not None:
        return style.sign(box.state)
    return _plain({"flow": "◆", "map": "≡", "fold": "≡"}.get(box.kind, "●"), fine)


def _plain(text: str, fine: bool) -> str:
    return text if fine else text.translate(_PLAIN)


def _listed(picture: Picture, style: Style, columns: int, done: dict[int, list[str]], fine: bool) -> list[str]:
    """The same without rails: each line names the boxes that it comes after."""
    after: dict[str, list[str]] = {}
    labels = {box.key: box.label for box in picture.boxes}
    for arrow in picture.arrows:
        after.setdefault(arrow.target, []).append(labels[arrow.source])
    lines: list[str] = []
    for box in _in_order(picture):
        words = _words(box, style, columns // 2, fine)
        line = f"{_sign(box, style, fine)} {words}"
        before = after.get(box.key, [])
        if before:
            named = ", ".join(before[:4]) + (f" and {len(before) - 4:,} more" if len(before) > 4 else "")
            line += style.paint(f"  after {cut(safe(named), columns // 2)}", "dim")
        lines.append(line)
        if box.inside is not None:
            lines += [f"{_plain('┆', fine)} {inner}" for inner in done[id(box.inside)]]
    return lines
