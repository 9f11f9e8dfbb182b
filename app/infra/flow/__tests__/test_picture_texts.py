"""Pictures as text: SVG that any parser reads and any user's words cannot break, Mermaid, DOT, and lines for a terminal."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from .. import ExecutionState, GraphNode, TaskType
from ..tools.pictures.ascii import ascii_of
from ..tools.pictures.colours import DARK_FAINT, DARK_INK, DARK_PAPER, FAINT, INK, LOOKS, PAPER
from ..tools.pictures.dot import dot_of, dot_text
from ..tools.pictures.mermaid import mermaid_of
from ..tools.pictures.model import Picture, declared_inside, picture_of
from ..tools.pictures.page import page_of
from ..tools.pictures.svg import svg_of
from ..tools.terminal import Style
from .test_pictures import DIAMOND, chain, fan, graph_of, in_states, nested, random_dag

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; alert(1); '",
    "]]></svg><svg onload=alert(1)>",
    "</title></style></text>",
    "javascript:alert(1)",
    "&lt;b&gt; &amp;",
    "x[\"a\"] --> y; click x href 'z'",
    "`**bold**` #quot; %%{init: {}}%% end",
    '\\N \\G \\l \\\\ \\" \\',
    '"]; evil [label="',
    "\x1b[31m\x00\x07\x85\ud800",
    "a\u202eb\u2066c\u200f",
    "one\r\ntwo\nthree",
    "名前 ñ 🎉 e\u0301",
    "--> <!-- {{7*7}} ${7*7}",
]


def mixed() -> Picture:
    """One of every kind of box, in every state."""
    inside = {"no_blanks": GraphNode("no_blanks"), "verdict": GraphNode("verdict", depends_on=("no_blanks",))}
    graph = {
        "extract": GraphNode("extract", description="Reads it all."),
        "parse": GraphNode("parse", depends_on=("extract",), map_over="extract"),
        "checks": GraphNode("checks", TaskType.FLOW, ("extract",), flow_name="validation", inside=inside),
        "decide": GraphNode("decide", depends_on=("checks",), branch=True),
        "load": GraphNode("load", depends_on=("parse", "decide")),
        "tell": GraphNode("tell", depends_on=("load",)),
    }
    states = {"extract": "success", "parse": "failed", "parse[0]": "success", "parse[1]": "failed", "checks": "running"}
    tasks = in_states({**states, "decide": "scheduled", "load": "skipped", "tell": "cancelled"})
    return picture_of(graph, tasks=tasks, title="mixed", state="failed", inside=declared_inside(graph))


def hostile(text: str) -> Picture:
    """The text wherever somebody's words may stand."""
    node = GraphNode(text, name=text, description=text, flow_name=text, type=TaskType.FLOW, inside={text: GraphNode(text)})
    graph = {text: node, f"{text} 2": GraphNode(f"{text} 2", depends_on=(text,), map_over=text)}
    tasks = in_states({text: "failed", f"{text} 2": "skipped"})
    tasks[text].reason = text
    return picture_of(graph, tasks=tasks, title=text, state="failed", inside=declared_inside(graph))


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)


# --- SVG ---


def test_an_svg_has_a_group_for_each_task_with_its_state_and_a_text_of_its_own() -> None:
    root = parsed(svg_of(mixed()))
    groups = {group.get("data-task"): group for group in root.iter(f"{SVG}g") if group.get("data-task")}
    assert {key: group.get("data-state") for key, group in groups.items()} == {
        "extract": "success",
        "parse": "failed",
        "checks": "running",
        "checks.no_blanks": None,
        "checks.verdict": None,
        "decide": "scheduled",
        "load": "skipped",
        "tell": "cancelled",
    }
    title = groups["parse"].find(f"{SVG}title")
    assert title is not None
    assert title.text == "parse\nfailed\n2 items: 1 failed, 1 success"
    assert "state-failed" in str(groups["parse"].get("class")).split()


def test_an_svg_can_be_read_aloud() -> None:
    root = parsed(svg_of(mixed()))
    assert root.get("role") == "img"
    assert root.get("aria-label") == "mixed: failed"
    title, description = root[0], root[1]
    assert (title.tag, title.text) == (f"{SVG}title", "mixed: failed")
    assert description.tag == f"{SVG}desc"
    assert "parse failed" in str(description.text)


def test_states_are_told_by_signs_too_and_a_legend_counts_them() -> None:
    root = parsed(svg_of(mixed()))
    for group in root.iter(f"{SVG}g"):
        if group.get("data-state"):
            assert group.find(f"{SVG}g[@class='sign']") is not None
    legend = next(group for group in root.iter(f"{SVG}g") if group.get("class") == "legend")
    words = [text.text for text in legend.iter(f"{SVG}text")]
    assert words == ["failed 1", "cancelled 1", "running 1", "scheduled 1", "skipped 1", "success 1"]
    assert len({look.sign for look in LOOKS.values()}) == len(LOOKS)


def test_arrows_say_from_where_and_to_where_and_those_of_maps_are_dashed() -> None:
    root = parsed(svg_of(mixed()))
    arrows = {(path.get("data-from"), path.get("data-to")): path for path in root.iter(f"{SVG}path") if path.get("data-from")}
    assert ("extract", "parse") in arrows
    assert ("checks.no_blanks", "checks.verdict") in arrows
    dashed = [ends for ends, path in arrows.items() if path.get("stroke-dasharray")]
    assert dashed == [("extract", "parse")]


def test_a_picture_in_a_page_brings_no_style_and_has_ids_and_links_where_they_are_asked_for() -> None:
    text = svg_of(mixed(), standalone=False, id_prefix="run-", link=lambda key: f"#{key}&x" if key != "tell" else None)
    root = parsed(text)
    assert root.find(f"{SVG}style") is None
    assert root.get("role") == "group"
    ids = [group.get("id") for group in root.iter(f"{SVG}g") if group.get("id")]
    assert len(ids) == len(set(ids)) == 8
    links = [anchor.get("href") for anchor in root.iter(f"{SVG}a")]
    assert "#parse&x" in links
    assert "#checks&x" in links
    assert "#tell&x" not in links
    assert "id=" not in svg_of(mixed())


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_a_user_wrote_is_more_than_text_in_an_svg_or_a_page(text: str) -> None:
    picture = hostile(text)
    for link in (None, lambda key: f"#{key}"):
        written = svg_of(picture, link=link, id_prefix=text)
        written.encode()
        root = parsed(written)
        known = {f"{SVG}{tag}" for tag in ["svg", "title", "desc", "style", "rect", "text", "g", "path", "circle", "a"]}
        assert {element.tag for element in root.iter()} <= known
        names = {name for element in root.iter() for name in element.keys()}  # noqa: SIM118 - an element is no mapping
        assert not [name for name in names if name.startswith("on") or name == "style"]
    page = page_of(picture)
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_names_reasons_and_descriptions_of_any_length_leave_a_picture_short() -> None:
    long = "x" * 1_000_000
    graph = {"a": GraphNode("a", name=long, description=long), "b": GraphNode("b", depends_on=("a",))}
    tasks = in_states({"a": "failed"})
    tasks["a"].reason = long
    picture = picture_of(graph, tasks=tasks, title=long)
    for text in (svg_of(picture), mermaid_of(picture), dot_of(replace(picture, title="")), page_of(replace(picture, title=""))):
        assert len(text) < 12_000


def test_an_empty_flow_is_a_picture_too() -> None:
    parsed(svg_of(picture_of({}, title="nothing")))


def test_pictures_nested_deep_and_chains_of_thousands_need_no_deep_stack() -> None:
    graph = nested(60)
    parsed(svg_of(picture_of(graph, inside=declared_inside(graph))))
    parsed(svg_of(picture_of(graph_of(chain(5000)), most=5000)))


# --- contrast (WCAG 2.2, 1.4.3 and 1.4.11) ---


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("state", LOOKS)
def test_texts_and_lines_stand_out_on_light_and_dark_pages(state: str) -> None:
    look = LOOKS[state]
    for ink, faint, paper, line, fill in (
        (INK, FAINT, PAPER, look.line, look.fill),
        (DARK_INK, DARK_FAINT, DARK_PAPER, look.dark_line, look.dark_fill),
    ):
        assert contrast(ink, fill) >= 4.5
        assert contrast(faint, fill) >= 4.5
        assert contrast(faint, paper) >= 4.5
        assert contrast(line, fill) >= 3
        assert contrast(line, paper) >= 3


def test_every_state_has_a_look() -> None:
    assert set(LOOKS) == {state.value for state in ExecutionState}


# --- Mermaid ---


def test_mermaid_text_names_each_box_its_shape_and_its_state() -> None:
    assert mermaid_of(mixed()) == MIXED_MERMAID


MIXED_MERMAID = """\
flowchart LR
    n0("extract"):::state-success
    n1[/"parse · 2 items#58; 1 failed, 1 success"/]:::state-failed
    subgraph n2["checks · flow validation · running"]
        direction LR
        n6("no_blanks")
        n7("verdict")
        n6 --> n7
    end
    style n2 fill:transparent,stroke:#1565c0
    n3{{"decide · branch · scheduled"}}:::state-scheduled
    n4("load · skipped"):::state-skipped
    n5("tell · cancelled"):::state-cancelled
    n0 -.-> n1
    n0 --> n2
    n2 --> n3
    n1 --> n4
    n3 --> n4
    n4 --> n5
    classDef state-success fill:#e6f4e7,stroke:#2e7d32,color:#1c2024
    classDef state-failed fill:#fdeaea,stroke:#c62828,color:#1c2024
    classDef state-skipped fill:#fdf3dc,stroke:#8a5a00,color:#1c2024
    classDef state-cancelled fill:#f5e9fa,stroke:#7b1fa2,color:#1c2024
    classDef state-scheduled fill:#f1f3f5,stroke:#5f6773,color:#1c2024
"""


def test_the_direction_is_as_asked() -> None:
    assert mermaid_of(mixed(), direction="TB").startswith("flowchart TB\n")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_a_user_wrote_is_more_than_text_in_mermaid(text: str) -> None:
    for line in mermaid_of(hostile(text)).splitlines():
        quoted = re.search(r'"(.*)"', line)
        if quoted is not None:
            assert re.fullmatch(r"(?:[\w .,\-…·]|#\d+;)*", quoted.group(1)), line
            assert not {int(number) for number in re.findall(r"#(\d+);", line)} & {0, 7, 27, 133, 0x202E, 0x2066, 0xD800}
        rest = line if quoted is None else line.replace(quoted.group(0), "")
        assert re.fullmatch(r"[\w \-:#,.>(){}\[\]/]*", rest), line


# --- DOT ---


STRING = r'"((?:[^"\\]|\\.)*)"'


def dot_strings(text: str) -> list[str]:
    """The quoted strings of a DOT text, as Graphviz reads them; fails if one does not end."""
    assert '"' not in re.sub(STRING, "", text, flags=re.DOTALL)
    return re.findall(STRING, text, re.DOTALL)


def test_dot_text_has_a_node_for_each_box_and_a_cluster_for_an_opened_flow() -> None:
    text = dot_of(mixed())
    assert text.startswith('digraph "mixed" {\n    rankdir=LR;')
    assert '    "extract" -> "parse" [style=dashed];' in text
    assert "    subgraph cluster_2 {" in text
    assert '    "extract" -> "checks.no_blanks" [lhead=cluster_2];' in text
    assert '    "checks.verdict" -> "decide" [ltail=cluster_2];' in text
    assert re.search(r'"load" \[label="load\\nskipped", fillcolor="#fdf3dc"', text)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_a_user_wrote_is_more_than_text_in_dot(text: str) -> None:
    written = dot_of(hostile(text))
    written.encode()
    dot_strings(written)
    assert written.count("{") - "".join(dot_strings(written)).count("{") == 2
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", written)


def test_backslashes_and_quotes_are_escaped_in_dot_and_lines_stay_lines() -> None:
    assert dot_text('a\\N "b"\nc') == '"a\\\\N \\"b\\"\\nc"'


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("picture", [mixed(), *map(hostile, HOSTILE), picture_of({})], ids=lambda picture: ascii(picture.title))
def test_graphviz_reads_it(picture: Picture) -> None:
    done = subprocess.run(["dot", "-Tsvg"], input=dot_of(picture).encode(), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    parsed(done.stdout.decode())


# --- lines for a terminal ---


def style_of(encoding: str = "utf-8", **environment: str) -> Style:
    return Style(io.TextIOWrapper(io.BytesIO(), encoding=encoding), environment)


def drawn(upstreams: Mapping[str, object] | Picture, encoding: str = "utf-8", columns: int = 80) -> str:
    picture = upstreams if isinstance(upstreams, Picture) else picture_of(graph_of(upstreams))  # type: ignore[arg-type]
    return ascii_of(picture, style_of(encoding), columns=columns)


def test_rails_lead_from_task_to_task() -> None:
    assert drawn(DIAMOND) == (
        "● extract\n"
        "├─● left\n"
        "● │ right\n"
        "╰─┤\n"
        "  ● join\n"
    )  # fmt: skip


def test_a_fan_has_one_rail_to_branch_off_and_one_to_run_into() -> None:
    assert drawn(fan(3)) == (
        "● source\n"
        "├─● work_0\n"
        "├─│─● work_1\n"
        "│ ├─╯\n"
        "● │ work_2\n"
        "╰─┤\n"
        "  ● gather\n"
    )  # fmt: skip
    assert max(map(len, drawn(fan(200)).splitlines())) < 20


def test_a_stream_without_these_characters_gets_others() -> None:
    assert drawn(DIAMOND, "ascii") == "* extract\n|-* left\n* | right\n`-|\n  * join\n"


def test_the_lines_of_a_run_have_signs_states_and_what_is_inside_nested_flows() -> None:
    assert drawn(mixed()) == (
        "mixed: failed\n"
        "✓ extract\n"
        "├─✗ parse  2 items: 1 failed, 1 success · failed\n"
        "▶ │ checks  flow validation · running\n"
        "┆ │  ● no_blanks\n"
        "┆ │  ● verdict\n"
        "· │ decide  branch · scheduled\n"
        "╰─┤\n"
        "  ↷ load  skipped\n"
        "  ⊘ tell  cancelled\n"
    )  # fmt: skip


def test_where_rails_would_take_too_much_room_each_line_names_what_it_comes_after() -> None:
    lines = drawn(random_dag(7, 200, 100), columns=60).splitlines()
    assert len(lines) == 200
    assert any(re.search(r"● t\d+  after t\d+, t\d+$", line) for line in lines)
    assert max(map(len, lines)) <= 75


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_a_user_wrote_steers_the_terminal(text: str) -> None:
    for encoding in ("utf-8", "ascii"):
        for line in drawn(hostile(text), encoding).splitlines():
            assert not re.search("[\x00-\x1f\x7f-\x9f\u202e\u2066\ud800]", line)


def test_colours_are_those_of_the_states() -> None:
    text = ascii_of(mixed(), style_of(FORCE_COLOR="1"))
    assert "\x1b[31mparse\x1b[0m" in text
    assert "\x1b[" not in drawn(mixed())
