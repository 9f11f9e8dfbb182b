"""The graphs that every engine runs here: for each task the tasks it comes after.

Standard library only, since it is imported inside each engine's own environment; knows no engine.
"""

from __future__ import annotations

from collections.abc import Callable

Shape = dict[str, tuple[str, ...]]
"""Each task's upstream tasks, in an order in which they could run."""

LAYERS = 10
UPSTREAMS = 3


def chain(size: int) -> Shape:
    """Makes ``size`` tasks, one after the other."""
    return {f"task_{i}": (f"task_{i - 1}",) if i else () for i in range(size)}


def fan(size: int) -> Shape:
    """Makes ``size - 1`` tasks that depend on nothing, and one that comes after all of them."""
    names = [f"task_{i}" for i in range(size - 1)]
    return {**dict.fromkeys(names, ()), f"task_{size - 1}": tuple(names)}


def layers(size: int) -> Shape:
    """Makes 10 layers of ``size / 10`` tasks, each after 3 tasks of the layer before."""
    width = size // LAYERS
    return {
        f"task_{layer * width + i}": tuple(f"task_{(layer - 1) * width + (i + k) % width}" for k in range(UPSTREAMS))
        if layer
        else ()
        for layer in range(LAYERS)
        for i in range(width)
    }


SHAPES: dict[str, Callable[[int], Shape]] = {"chain": chain, "fan": fan, "layers": layers}


def levels(shape: Shape) -> list[list[str]]:
    """Groups tasks that may run at once, for engines whose workflows are code: a group needs only the groups before it."""
    depth: dict[str, int] = {}
    groups: list[list[str]] = []
    for name, upstreams in shape.items():
        depth[name] = 1 + max((depth[upstream] for upstream in upstreams), default=-1)
        if depth[name] == len(groups):
            groups.append([])
        groups[depth[name]].append(name)
    return groups


def ends(shape: Shape) -> list[str]:
    """Names the tasks that nothing comes after."""
    inner = {upstream for upstreams in shape.values() for upstream in upstreams}
    return [name for name in shape if name not in inner]
