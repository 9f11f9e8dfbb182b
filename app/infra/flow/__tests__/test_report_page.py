"""The report in a real Chromium: clicked, typed at, in light and dark, on narrow screens, without its script, and attacked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, MemoryStore
from ..tools import write_report
from .browsers import ARGUMENTS, CHROMIUM
from .report_runs import hostile, many, sales, tangled

sync_api = pytest.importorskip("playwright.sync_api", reason="it looks at pages with Playwright: see requirements-extras.txt")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look at pages with")
SHOTS = os.environ.get("NIGHT_BATCH_SHOTS")
"""A folder for screenshots, for people to look at."""

CONTRAST = """() => {
  const parse = (text) => { const c = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(") ? [c[0] * 255, c[1] * 255, c[2] * 255, c[3] ?? 1] : [c[0], c[1], c[2], c[3] ?? 1]; };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = (c) => { const [r, g, b] = c.map((y) => { const x = y / 255;
    return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (node) => { const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]); };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest("svg, script, .unseen, .skip")) continue;
    const style = getComputedStyle(node);
    if (style.fontSize === "0px") continue;
    const back = ground(node), ink = over(parse(style.color), back);
    const [a, b] = [light(ink.slice(0, 3)), light(back.slice(0, 3))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const least = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if (ratio < least) found.push(`${ratio.toFixed(2)} ${node.className}: ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return found;
}"""
CLASHING = """() => { const all = [...document.querySelectorAll(".g-ticks span")].filter((it) => it.checkVisibility());
  const boxes = all.map((it) => it.getBoundingClientRect());
  return all.filter((_, i) => i && boxes[i].left < boxes[i - 1].right).map((it) => it.textContent); }"""
"""Which moments at the axis run into the one before."""
UNNAMED = """() => [...document.querySelectorAll("a[href], button, input, summary, [role=img], [tabindex]")].filter((node) =>
  node.checkVisibility() && !(node.getAttribute("aria-label") || node.textContent.trim() || node.labels?.length))
  .map((node) => node.outerHTML)"""


@pytest.fixture(scope="module")
def browser(files: Path) -> Iterator[Any]:  # the runs are made first: its own loop runs in this thread
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of each kind of run."""
    folder = tmp_path_factory.mktemp("reports")
    store = MemoryStore()
    write_report(store, sales(store).id, folder / "sales.html")
    write_report(store, hostile(store).id, folder / "hostile.html")
    write_report(store, many(store, 300).id, folder / "many.html")
    write_report(store, tangled(store).id, folder / "tangled.html")
    flow = AsyncFlow("empty", store)
    write_report(store, flow.run(run_id="empty").id, folder / "empty.html")
    return folder


@pytest.fixture
def show(browser: Any, files: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Opens a report. At the end, nothing may have been said on the console, nor asked of a network."""
    said: list[str] = []
    contexts: list[Any] = []

    def opened(name: str, *, width: int = 1280, dark: bool = False, script: bool = True, anchor: str = "") -> Any:
        scheme = "dark" if dark else "light"
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        address = (files / f"{name}.html").as_uri()
        page.on("request", lambda asked: said.append(f"request: {asked.url}") if not asked.url.startswith(address) else None)
        page.goto(address + anchor)
        if SHOTS:
            page.screenshot(path=str(Path(SHOTS) / f"{request.node.name}.png"), full_page=True)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def visible_rows(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        "#rows > tbody", "all => all.filter(b => !b.hidden).map(b => b.querySelector('a').title)"
    )
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["sales", "many", "hostile", "tangled", "empty"])
def test_all_that_is_written_can_be_read(show: Callable[..., Any], name: str, dark: bool) -> None:
    page = show(name, dark=dark)
    page.keyboard.press("e")
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(UNNAMED) == []


@pytest.mark.parametrize("width", [320, 360, 1000])
@pytest.mark.parametrize("name", ["sales", "many", "hostile", "tangled"])
def test_it_fits_on_the_screen(show: Callable[..., Any], name: str, width: int) -> None:
    page = show(name, width=width)
    page.keyboard.press("e")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CLASHING) == []


def test_the_bars_of_the_timeline_have_room_on_a_telephone(show: Callable[..., Any]) -> None:
    page = show("sales", width=320)
    assert page.locator(".g-lane").first.evaluate("it => it.getBoundingClientRect().width") > 200
    assert page.evaluate(CLASHING) == []


def test_hostile_texts_do_nothing(show: Callable[..., Any]) -> None:
    page = show("hostile")
    page.keyboard.press("e")
    for button in page.query_selector_all("button"):
        if button.is_visible():
            button.click()
    page.evaluate("document.querySelectorAll('details').forEach((it) => it.open = true)")
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert page.evaluate("document.querySelectorAll('img, iframe, object, embed').length") == 0
    assert "<script>window.hacked=1</script>" in page.inner_text("h1")


def test_the_policy_is_a_wall_of_its_own(browser: Any, files: Path, tmp_path: Path) -> None:
    """Even markup that had got through would not run, and would load nothing."""
    source = (files / "sales.html").read_text(encoding="utf-8")
    (tmp_path / "broken.html").write_text(
        source.replace(
            "</main>", "<script>window.hacked=1</script><img src='https://example.invalid/x' onerror='window.hacked=1'></main>"
        ),
        encoding="utf-8",
    )
    context = browser.new_context()
    page = context.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto((tmp_path / "broken.html").as_uri())
    assert page.evaluate("window.hacked") is None
    assert len([text for text in refused if "Content Security Policy" in text]) >= 2
    context.close()


def test_a_name_opens_what_is_known_and_closes_it_again(show: Callable[..., Any]) -> None:
    page = show("sales")
    name = page.locator("th.task a", has_text="rates")
    assert name.get_attribute("aria-expanded") == "false"
    name.click()
    detail = page.locator(f"#{name.get_attribute('aria-controls')}")
    assert detail.is_visible()
    assert name.get_attribute("aria-expanded") == "true"
    assert "ConnectionError: the bank does not answer" in detail.inner_text()
    name.click()
    assert not detail.is_visible()


@pytest.mark.parametrize("place", [".card h3 a", ".path a >> nth=-1", ".g-row a[title='invoice[east]']"])
def test_a_link_leads_to_the_row_of_its_task(show: Callable[..., Any], place: str) -> None:
    page = show("sales")
    page.fill("#filter", "rates")
    page.locator(place).first.click()
    row = page.locator("tbody[data-state=failed]", has=page.locator("a[title='invoice[east]']"))
    row.locator("tr.detail").wait_for(state="visible")
    assert page.input_value("#filter") == ""
    assert page.evaluate("document.activeElement.title") == "invoice[east]"
    assert row.evaluate("it => it.getBoundingClientRect().top < innerHeight && it.getBoundingClientRect().top >= 0")
    page.locator("#filter").fill("rates")
    assert not row.is_visible()
    page.locator(place).first.click()  # the address is the same now
    row.locator("tr.detail").wait_for(state="visible")


def test_a_box_of_the_graph_leads_to_the_row_of_its_task(show: Callable[..., Any]) -> None:
    page = show("sales")
    page.locator(".picture a", has=page.locator("[data-task='rates']")).click()
    page.wait_for_function("document.activeElement.title === 'rates'")
    assert page.locator("tr.detail.open").count() == 1


def test_a_large_graph_begins_where_something_failed_and_comes_closer_by_buttons_and_keys(show: Callable[..., Any]) -> None:
    page = show("tangled")
    picture = page.locator("#graph > .picture")
    told = page.locator("#graph .zoomed")
    failed = page.locator("#graph [data-task=t70]")
    inside = """(it) => { const a = it.getBoundingClientRect(), b = it.closest('.picture').getBoundingClientRect();
      return a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom; }"""
    assert failed.evaluate(inside)
    assert told.inner_text() == "72 %"
    page.get_by_role("button", name="Fit to the width").click()
    assert picture.evaluate("it => it.scrollWidth <= it.clientWidth")
    fitting = int(told.inner_text().removesuffix(" %"))
    assert 20 < fitting < 72
    picture.focus()
    page.keyboard.press("1")
    assert told.inner_text() == "100 %"
    assert picture.evaluate("it => it.scrollWidth > it.clientWidth")
    page.keyboard.press("-")
    assert told.inner_text() == "80 %"
    page.keyboard.press("+")
    assert told.inner_text() == "100 %"
    failed.scroll_into_view_if_needed()
    page.keyboard.press("0")
    assert told.inner_text() == f"{fitting} %"
    for _ in range(30):
        page.keyboard.press("+")
    assert told.inner_text() == "200 %"


def test_a_graph_that_fits_has_no_buttons_to_come_closer(show: Callable[..., Any]) -> None:
    page = show("sales")
    assert not page.get_by_role("button", name="Zoom in").is_visible()


def test_a_large_graph_scrolls_without_the_script(show: Callable[..., Any]) -> None:
    picture = show("tangled", script=False).locator("#graph > .picture")
    assert picture.evaluate("it => it.scrollWidth > it.clientWidth && it.clientHeight < innerHeight")
    assert picture.evaluate("it => it.querySelector('svg text').getBoundingClientRect().height") > 8


def test_a_link_to_a_task_opens_it_when_the_page_is_opened(show: Callable[..., Any], files: Path) -> None:
    page = show("many", anchor="#d9")
    page.wait_for_function("document.activeElement.title === 'square[7]'")
    assert page.locator("#d9").is_visible()


def test_the_filter_finds_names_states_and_reasons(show: Callable[..., Any]) -> None:
    page = show("many")
    assert visible_rows(page) == ["numbers", "square"]
    page.keyboard.press("/")
    page.keyboard.type("bad number 107")
    assert visible_rows(page) == ["square", "square[107]"]
    assert page.inner_text("#found") == "2 of 302"  # what is made of them says it, too
    page.keyboard.press("Escape")
    assert visible_rows(page) == ["numbers", "square"]
    page.locator(".chip[data-state=failed]").click()
    assert visible_rows(page) == ["square", "square[7]", "square[107]", "square[207]"]
    assert page.locator(".chip[data-state=failed]").get_attribute("aria-pressed") == "true"


def test_columns_sort_within_their_level_and_back(show: Callable[..., Any]) -> None:
    page = show("sales")
    before = visible_rows(page)
    page.click("th.took button")
    assert page.get_attribute("th.took", "aria-sort") == "descending"
    tops = [title for title in visible_rows(page) if "." not in title and "[" not in title]
    assert tops[:2] == ["invoice", "rates"]
    rows = visible_rows(page)
    assert rows[rows.index("invoice") + 1 :][:2] == ["invoice[east]", "invoice[north]"]
    page.click("th.took button")
    assert page.get_attribute("th.took", "aria-sort") == "ascending"
    page.click("th.took button")
    assert page.get_attribute("th.took", "aria-sort") is None
    assert visible_rows(page) == before


def test_folds_hide_what_is_below_them(show: Callable[..., Any]) -> None:
    page = show("many")
    twist = page.locator(".twist")
    assert twist.get_attribute("aria-expanded") == "false"
    twist.click()
    assert len(visible_rows(page)) == 302
    assert page.locator(".twist").get_attribute("aria-expanded") == "true"
    page.click("#unfold")
    assert visible_rows(page) == ["numbers", "square"]
    assert page.inner_text("#unfold") == "Unfold all"


def test_it_can_be_used_by_keys_alone(show: Callable[..., Any]) -> None:
    page = show("sales")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.title") == "rates"
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    third = page.evaluate("document.activeElement.title")
    page.keyboard.press("k")
    assert page.evaluate("document.activeElement.title") != third
    page.keyboard.press("Enter")
    assert page.locator("tr.detail.open").count() == 1
    page.keyboard.press("s")
    assert page.get_attribute("th.took", "aria-sort") == "descending"
    page.keyboard.press("e")
    assert page.locator("tbody[data-state=failed] tr.detail.open").count() == 2


def test_light_and_dark_can_be_chosen_and_are_kept(show: Callable[..., Any]) -> None:
    page = show("sales")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    assert page.evaluate(ground) != light
    page.reload()
    assert page.evaluate(ground) != light
    page.keyboard.press("t")
    assert page.evaluate(ground) == light


def test_without_its_script_all_is_there(show: Callable[..., Any]) -> None:
    page = show("sales", script=False)
    assert page.locator("#rows > tbody").count() == page.locator("#rows > tbody >> visible=true").count() == 9
    assert not page.locator("#filter").is_visible()
    page.locator("th.task a", has_text="rates").click()
    assert page.locator("tr.detail >> visible=true").count() == 1
    assert "the bank does not answer" in page.locator("tr.detail >> visible=true").inner_text()


def test_it_prints_in_full_without_its_controls(show: Callable[..., Any], tmp_path: Path) -> None:
    page = show("sales", dark=True)
    page.keyboard.press("t")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(CONTRAST) == []
    assert not page.locator("nav").is_visible()
    assert not page.locator("#filter").is_visible()
    assert page.locator(".card").first.is_visible()
    assert len(page.pdf()) > 10_000


def test_screen_readers_are_told_the_structure(show: Callable[..., Any]) -> None:
    page = show("sales")
    told = page.locator("body").aria_snapshot()
    for line in (
        'heading "nightly-sales" [level=1]',
        'heading "What failed" [level=2]',
        "navigation",
        "main",
        'table "The tasks of the run.',
    ):
        assert line in told
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("section").count() == page.locator("section[aria-labelledby]").count() == 6
