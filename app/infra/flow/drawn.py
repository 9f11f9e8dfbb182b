"""How a flow shows itself: as Mermaid, DOT or SVG text, and in a notebook. The pictures are made by the rooms around the engine.

Must not know how a picture is made, nor how a run is driven.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container

    from .models import WorkflowRun


class Drawn:
    """What can be drawn: mixed into `AsyncFlow`."""

    def to_mermaid(self, run: str | WorkflowRun | None = None, *, direction: str = "LR") -> str:
        """The flow as a Mermaid flow chart, for Markdown pages that draw it: those of GitHub, say, in a block called `mermaid`.

        Mapped tasks are one box each, and nested flows are opened as far as there is room. Where tasks are many (beyond 300
        boxes, or more than Mermaid takes), those that are alike share one.

        Args:
            run: a run, or the id of one in the flow's store: it is drawn with the graph that it was made with, coloured by the
                states of its tasks. Left out, the flow is drawn as it is declared now.
            direction: `LR`, from left to right, or `TB`, `RL` or `BT`.

        Raises:
            RunNotFoundError: there is no such run.
            InvalidOptionError: no such direction.
        """
        return _text("mermaid", self, run, direction)

    def to_dot(self, run: str | WorkflowRun | None = None, *, direction: str = "LR") -> str:
        """The flow as DOT text for Graphviz, with the arguments of `to_mermaid`."""
        return _text("dot", self, run, direction)

    def to_svg(self, run: str | WorkflowRun | None = None, *, direction: str | None = None) -> str:
        """The flow as an SVG picture: one element that needs nothing else, to be written to a file or put into a page.

        It follows the reader's choice of light or dark, tells states by signs as well as by colours, and can be read aloud.

        Args:
            run: as for `to_mermaid`.
            direction: `LR` or `TB`; by default from left to right, unless that would be very long.

        Raises:
            RunNotFoundError: there is no such run.
            InvalidOptionError: no such direction.
        """
        return _text("svg", self, run, direction)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return _text("html_of_flow", self)

    def _repr_mimebundle_(
        self, include: Container[str] | None = None, exclude: Container[str] | None = None, **_: Any
    ) -> dict[str, str]:
        """What a notebook shows, by kind; see IPython's rich display."""
        from .around import bundle  # late: every program that declares flows loads this room, few draw them

        return bundle(repr(self), self._repr_html_, include, exclude)


def _text(name: str, *arguments: object) -> str:
    from .around import around  # late: every program that declares flows loads this room, few draw them

    return str(around("pictures.flows", name)(*arguments))
