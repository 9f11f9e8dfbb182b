"""The graphs that are measured: a chain, a fan-out to an aggregate, and layers.

A shape yields each task's id and the ids of what it depends on; as a dict, that is what `graphlib` takes. Must not know who
runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

Graph = dict[str, tuple[str, ...]]
Tasks = Iterator[tuple[str, tuple[str, ...]]]


def chain(tasks: int) -> Tasks:
    """Each task depends on the one before it."""
    return ((f"t{number}", (f"t{number - 1}",) if number else ()) for number in range(tasks))


def fan(tasks: int) -> Tasks:
    """All but one depend on nothing; the last one depends on all of them."""
    yield from ((f"t{number}", ()) for number in range(tasks - 1))
    yield "total", tuple(f"t{number}" for number in range(tasks - 1))


def layers(tasks: int, depth: int = 10) -> Tasks:
    """`depth` layers of equal width; each task depends on three of the layer above."""
    width = tasks // depth
    return ((f"t{number}", _above(number, width)) for number in range(tasks))


def _above(number: int, width: int) -> tuple[str, ...]:
    layer, place = divmod(number, width)
    first = (layer - 1) * width
    return tuple(f"t{first + (place + step) % width}" for step in range(min(3, width))) if layer else ()


def deep_layers(tasks: int) -> Tasks:
    """Layers as the growth lines take them: a thousand, or a tenth of the tasks where these are few."""
    return layers(tasks, min(1000, tasks // 10))


def gated(tasks: int) -> Tasks:
    """Deep layers; the task at nine tenths, "gate", depends on all of its layer above, and all that follows depends on it."""
    depth = min(1000, tasks // 10)
    width = tasks // depth
    at = depth * 9 // 10 * width
    for task_id, upstream in deep_layers(tasks):
        number = int(task_id[1:])
        if number == at:
            yield "gate", tuple(f"t{above}" for above in range(at - width, at))
        elif number < at + width:  # the rest of the gate's layer follows it, so that nothing passes the gate by
            yield task_id, upstream if number < at else ("gate",)
        else:
            yield task_id, tuple("gate" if above == f"t{at}" else above for above in upstream)


SHAPES: dict[str, Callable[[int], Tasks]] = {"chain": chain, "fan": fan, "layers": layers}
"""The shapes of the overhead lines, by name."""

GROWING: dict[str, Callable[[int], Tasks]] = {"chain": chain, "fan": fan, "layers": deep_layers}
"""The shapes of the growth lines, by name."""
