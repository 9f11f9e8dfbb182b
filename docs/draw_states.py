"""Draws the state diagrams of docs/architecture.md from the engine's edge tables.

`python -m docs.draw_states` writes them into the page; with `--check` it only says whether the page is up to date.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from app.infra.flow.steps import RUN_EDGES, TASK_EDGES, Edge

PAGE = Path(__file__).with_name("architecture.md")


def picture(edges: Sequence[Edge]) -> str:
    """A Mermaid state diagram with one arrow per edge, its reason (up to a colon, which Mermaid cannot show) beside it."""
    arrows = [f"    {edge.source} --> {edge.target}: {edge.reason.partition(':')[0]}" for edge in edges]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> scheduled", *arrows, "```"])


def drawn(page: str) -> str:
    """The page with both pictures as the tables have them now."""
    for name, edges in (("task", TASK_EDGES), ("run", RUN_EDGES)):
        start = f"<!-- {name} states -->\n"
        before, _, rest = page.partition(start)
        page = f"{before}{start}{picture(edges)}\n{rest[rest.index('<!-- end -->') :]}"
    return page


def main() -> int:
    """Write the page, or with `--check` say whether it needs to be written."""
    before = PAGE.read_text()
    if "--check" in sys.argv[1:]:
        return int(before != drawn(before))
    PAGE.write_text(drawn(before))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
