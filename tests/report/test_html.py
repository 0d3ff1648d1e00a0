"""The pages as a browser shows them: whole, silent, and without asking the network."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from exporter import stages
from report import build, external, history, html, published
from report.extras import Extras
from report.slo import check, read
from tests.processes import program
from tests.report.example import good_run
from tests.report.recording import Recording, full, run

if TYPE_CHECKING:
    from collections.abc import Iterator

SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"

WIDTHS = {"desktop": (1200, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report with everything on it, one with nothing, and a history."""
    folder = tmp_path_factory.mktemp("pages")
    result = build(good_run().write(folder / "runs" / "a"))
    tool = folder / "bench.json"
    tool.write_text('{"throughput_rps": 1.2, "latency_ms": {"p50": 810.0}}')
    extras = Extras(
        references=(published.beside(result, published.find("RTX 3090/quicktalk/540×900")),),
        externals=(external.read(tool),),
        checks=tuple(
            check(
                result,
                read({"objectives": [{"metric": stages.PERCEIVED_TTFV.key, "at_most": 4000}]}),
            )
        ),
    )
    changed = good_run(seed=2, slower_ms=250.0)
    changed.run_id = "run-2"
    changed.run["started_unix"] += 86_400.0
    changed.write(folder / "runs" / "b")
    empty = build(Recording().write(folder / "empty"))
    texts = {
        "report": html.render(result, extras),
        "empty": html.render(empty),
        "history": history.page(history.read(folder / "runs")),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program("chromium", "chromium"), args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["report", "empty", "history"])
def test_a_page_opens_without_a_word_or_a_request(
    pages: dict[str, Path], browser: Any, name: str, scheme: str, size: str
) -> None:
    width, height = WIDTHS[size]
    view = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=True
    )
    said: list[str] = []
    asked: list[str] = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("request", lambda request: asked.append(request.url))
    view.goto(pages[name].as_uri())
    assert said == []
    # The page itself, and the icon that it carries.
    assert [url for url in asked if not url.startswith("data:")] == [pages[name].as_uri()]
    # Wide tables scroll inside their box; the page does not.
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    background = view.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    view.close()


def test_text_of_a_plot_is_readable_on_a_phone(pages: dict[str, Path], browser: Any) -> None:
    view = browser.new_page(viewport={"width": 390, "height": 844})
    view.goto(pages["report"].as_uri())
    heights = view.evaluate(
        "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
        ".filter(h => h > 0)"
    )
    assert len(heights) > 50
    assert min(heights) >= 8.0
    view.close()


def test_a_slow_turn_opens_by_a_click(pages: dict[str, Path], browser: Any) -> None:
    view = browser.new_page()
    view.goto(pages["report"].as_uri())
    turns = view.locator("details")
    assert turns.count() == 10
    second = turns.nth(1)
    assert not second.locator("svg").is_visible()
    second.locator("summary").click()
    assert second.locator("svg").is_visible()
    assert stages.AVATAR_FIRST_FRAME_LATENCY.title in second.locator("svg").text_content()
    view.close()


def test_a_report_prints_black_on_white(pages: dict[str, Path], browser: Any) -> None:
    view = browser.new_page(color_scheme="dark")
    view.goto(pages["report"].as_uri())
    view.emulate_media(media="print", color_scheme="light")
    assert view.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert len(view.pdf()) > 10_000
    view.close()


def test_screenshots_can_be_made(pages: dict[str, Path], browser: Any, tmp_path: Path) -> None:
    """UPDATE_SCREENSHOTS=1 writes those of docs/screenshots anew."""
    import os

    folder = SCREENSHOTS if os.environ.get("UPDATE_SCREENSHOTS") else tmp_path
    folder.mkdir(exist_ok=True)
    for name, scheme, size in (
        ("report", "light", "desktop"),
        ("report", "dark", "phone"),
        ("history", "light", "desktop"),
    ):
        width, height = WIDTHS[size]
        view = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        view.goto(pages[name].as_uri())
        path = folder / f"{name}-{size}-{scheme}.png"
        view.screenshot(path=path)
        assert path.stat().st_size > 5000
        view.close()


class Checker(HTMLParser):
    """Finds tags that are not closed and what could reach the network."""

    void = frozenset({"meta", "link", "br", "line", "rect", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.reaching: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "action"} and not (value or "").startswith("data:"):
                self.reaching.append(f"{tag} {name}={value}")
        if tag in {"script", "iframe", "object"}:
            self.reaching.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


@pytest.mark.parametrize("name", ["report", "empty", "history"])
def test_a_page_is_whole_and_points_nowhere(pages: dict[str, Path], name: str) -> None:
    checker = Checker()
    checker.feed(pages[name].read_text(encoding="utf-8"))
    assert checker.open == []
    assert checker.reaching == []


def test_text_of_the_measured_system_stays_text(tmp_path: Path) -> None:
    recording = full()
    recording.run = run(notes="<script>alert(1)</script>\x1b[31m", model='"><img src=x>')
    page = html.render(build(recording.write(tmp_path / "b")))
    assert "<script" not in page
    assert "<img" not in page
    assert "\x1b" not in page


def test_the_same_bundle_gives_the_same_page(tmp_path: Path) -> None:
    one, other = (html.render(build(full().write(tmp_path / name))) for name in "ab")
    assert one == other


def test_a_run_that_proves_nothing_says_so_on_the_page(tmp_path: Path) -> None:
    recording = full()
    recording.run = run(synthetic=True, stand_ins=["LLM"])
    page = html.render(build(recording.write(tmp_path / "b")))
    assert '<p class="warn">A run on a synthetic runtime only proves orchestration works' in page


def test_the_history_has_a_point_a_run_and_names_what_it_could_not_read(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        recording = full()
        recording.run_id = f"run-{number}"
        recording.run["started_unix"] += 86_400.0 * number
        recording.write(tmp_path / "runs" / str(number) / "bundle")
    (tmp_path / "runs" / "cut").mkdir()
    (tmp_path / "runs" / "cut" / "manifest.json").write_text("{")
    found = history.read(tmp_path / "runs")
    assert [entry.name for entry in found.entries] == ["1/bundle", "2/bundle", "3/bundle"]
    page, table = history.page(found), history.table(found)
    assert page.count("<circle") >= 9
    assert "cut" in page
    assert table.count("| quicktalk |") == 3
    assert "Not read: cut:" in table
    dates = [line.split(" | ")[0] for line in table.splitlines()[2:5]]
    assert dates == ["| 2026/5/21", "| 2026/5/22", "| 2026/5/23"]
