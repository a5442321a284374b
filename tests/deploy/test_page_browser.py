"""`clew page` in a real browser: mazes are drawn and solved, by mouse and by keyboard, and what is seen is what is."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import clew
from deploy.page import history, shipped
from tests.deploy.test_cli import wait_until
from tests.parts.deadline import DEADLINE_S
from tests.parts.page import Served, serving
from tests.parts.records import record_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WALLS = ["S......", "######.", ".......", ".######", "......E"]  # of a maze that tests draw: a serpentine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or another that is installed."""
    if not CHROMIUM:
        pytest.skip("no Chromium is installed here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-deploy")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root has none
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page that shows a run which never happened, with theta as it ships."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "run").mkdir()
    (folder / "run/updates.jsonl").write_bytes(b"".join(record_of(update).line for update in range(1, 40)))
    with serving(folder / "run", folder=folder) as page:
        yield page


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """The page, opened anew; it must make no error, and ask nobody else for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(1_000 * DEADLINE_S)
    opened, faults = context.new_page(), list[str]()
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda asked: faults.append(asked.url) if not is_ours(asked.url, served) else None)
    open_at(opened, served.url)
    yield opened
    context.close()
    assert [fault for fault in faults if "status of 422" not in fault] == []


def is_ours(url: str, served: Served) -> bool:
    return url.startswith((served.url + "/", "data:"))


def open_at(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("html[data-ready]")


def empty(page: Page, side: int) -> None:
    """Begins a maze without walls."""
    page.select_option("#family", "")
    page.fill("#side", str(side))
    page.click("text=New maze")
    wait_until(lambda: text(page).count("\n") == side - 1 and set(text(page)) == set("S.E\n"))


def text(page: Page) -> str:
    drawn: str = page.input_value("#text")
    return drawn


def place(page: Page, row: int, column: int, side: int) -> tuple[float, float]:
    """The middle of a cell on the screen."""
    box = page.locator("#robot").bounding_box()
    assert box
    return box["x"] + (column + 0.5) * box["width"] / side, box["y"] + (row + 0.5) * box["height"] / side


def drag(page: Page, side: int, *cells: tuple[int, int]) -> None:
    """Draws with the mouse from the first cell through the others."""
    page.mouse.move(*place(page, *cells[0], side))
    page.mouse.down()
    for cell in cells[1:]:
        page.mouse.move(*place(page, *cell, side), steps=8)
    page.mouse.up()


def solve(page: Page) -> list[str]:
    """Presses the button, and returns the steps of every attempt as the page lists them."""
    page.click("#solve")
    page.wait_for_selector("#results tr.now")
    return list(page.locator("#results tr:has(button) td:nth-child(2)").all_inner_texts())


def adapted(maze: str, seed: int, attempts: int = 10) -> clew.Robot:
    run = shipped.load()
    trial = clew.Run(run.name, run.update, run.config, run.theta_P).adapt([clew.Maze(maze)], attempts, seed)
    return trial.robots[0]


def test_who_presses_the_button_as_soon_as_it_is_there_sees_the_first_maze_solved(
    browser: Browser, served: Served
) -> None:
    context = browser.new_context(reduced_motion="reduce")
    context.set_default_timeout(1_000 * DEADLINE_S)
    fresh = context.new_page()
    fresh.goto(served.url, wait_until="commit")
    assert len(solve(fresh)) == 10
    context.close()


def test_a_maze_is_drawn_with_the_mouse_and_solved_move_by_move_as_adapt_does(page: Page) -> None:
    empty(page, 7)
    drag(page, 7, (1, 0), (1, 5))
    drag(page, 7, (3, 6), (3, 1))
    drag(page, 7, (5, 0), (5, 5))
    page.check("[value=S]")
    page.mouse.click(*place(page, 2, 3, 7))
    page.check("[value=H]")
    page.mouse.click(*place(page, 0, 0, 7))
    drawn = "H......\n######.\n...S...\n.######\n.......\n######.\n......E"
    assert text(page) == drawn
    steps, robot = solve(page), adapted(drawn, 1)
    assert steps == [str(len(walk.moves)) if walk.found else "failed" for walk in robot.walks]
    assert steps[-1] == str(robot.maze.shortest)
    for number, walk in enumerate(robot.walks[:3]):
        page.locator("#results button").nth(number).click()
        for step in range(len(walk.moves) + 1):
            assert f"step {step} of {len(walk.moves)}" in page.inner_text("#robot-says")
            assert robots_cell(page, 7) == tuple(walk.cells[step])
            page.keyboard.press("ArrowRight") if step % 2 else page.click("#step")
            page.evaluate("document.activeElement.blur()")


def robots_cell(page: Page, side: int) -> tuple[int, int]:
    """Where the picture shows the robot: the cell whose middle has its colour."""
    colour_of = """side => {
        const canvas = document.querySelector("#robot"), pen = canvas.getContext("2d"), found = [];
        const size = canvas.width / side;
        for (let row = 0; row < side; row++) for (let column = 0; column < side; column++) {
            const [r, g, b] = pen.getImageData((column + 0.5) * size, (row + 0.5) * size, 1, 1).data;
            if (r === 230 && g === 159 && b === 0) found.push([row, column]);
        }
        return found;
    }"""
    (cell,) = page.evaluate(colour_of, side)
    return cell[0], cell[1]


def test_the_marks_that_the_page_draws_are_those_of_the_robots_memory(page: Page) -> None:
    solve(page)
    count = """async () => {
        const { fromText } = await import("/maze.js"), { memoryAt, marksOf } = await import("/memory.js");
        const body = JSON.stringify({ maze: document.querySelector("#text").value, seed: 1, attempts: 4 });
        const answer = await fetch("/try", { method: "POST", headers: { "content-type": "application/json" }, body });
        const trial = await answer.json(), maze = fromText(trial.maze);
        return trial.attempts.map(({ cells, marks }, number) => marks.map((sent, step) =>
            [sent, marksOf(maze, cells[step], memoryAt(trial, number, step))]));
    }"""
    pairs = [pair for attempt in page.evaluate(count) for pair in attempt]
    assert len(pairs) > 100
    assert all(sent == drawn for sent, drawn in pairs)
    assert {mark for sent, _ in pairs for mark in sent} >= set("01235")


def test_a_link_holds_the_maze_and_the_seed(page: Page, served: Served) -> None:
    page.fill("#seed", "5")
    page.select_option("#family", "rooms")
    page.fill("#side", "9")
    page.click("text=New maze")
    wait_until(lambda: len(text(page)) == 89)
    drawn, link = text(page), page.url
    assert drawn == str(clew.sample("rooms", 9, seed=5)[0])
    page.goto("about:blank")
    open_at(page, link)
    assert (text(page), page.input_value("#seed")) == (drawn, "5")
    page.goto(link[:-12])  # cut short
    page.reload()
    page.wait_for_selector("#message.fault")
    assert "holds no whole maze" in page.inner_text("#message")


def test_all_is_done_with_the_keyboard_alone(page: Page) -> None:
    empty(page, 5)
    page.focus("#solve")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "robot"
    page.keyboard.press("ArrowDown")
    for _ in range(4):
        page.keyboard.press("#")
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert "row 3, column 5: free" in page.inner_text("#message")
    page.keyboard.press("e")
    assert text(page) == "S....\n####.\n....E\n.....\n....E"
    page.keyboard.press("e")  # an exit is taken back
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results tr.now")
    assert "The shortest way takes 8 steps." in page.inner_text("#message")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    assert "step 1 of" in page.inner_text("#robot-says")
    page.keyboard.press(" ")
    wait_until(lambda: "attempt 2" in page.inner_text("#robot-says"))
    page.keyboard.press(" ")
    assert page.inner_text("#go") == "Play"


def test_what_cannot_be_walked_is_said_in_the_servers_words(page: Page) -> None:
    empty(page, 5)
    drag(page, 5, (1, 0), (1, 4))
    page.click("#solve")
    page.wait_for_selector("#message.fault")
    assert "no way leads from the start to an exit; open a wall between them" in page.inner_text("#message")


def test_files_and_pasted_texts_are_read(page: Page, tmp_path: Path) -> None:
    page.click("summary >> nth=0")
    (tmp_path / "mouse.txt").write_text("o---o---o\n| S   G |\no---o---o\n\nS.E\n")
    page.set_input_files("#file", tmp_path / "mouse.txt")
    wait_until(lambda: text(page) == "S.E")
    assert "The first of 2 mazes. Its shortest way takes 2 steps." in page.inner_text("#message")
    page.fill("#text", "\n".join(WALLS))
    page.click("#read")
    wait_until(lambda: "22 steps" in page.inner_text("#message"))
    give = """([kind, text]) => {
        const data = new DataTransfer();
        data.setData("text", text);
        const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, bubbles: true })
            : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    for kind, drawn in (("paste", "S..E"), ("drop", "E...S")):
        page.evaluate(give, [kind, drawn])
        wait_until(lambda drawn=drawn: text(page) == drawn)  # type: ignore[misc]
    page.evaluate(give, ["paste", "S" * 1_000_000])
    page.wait_for_selector("#message.fault")
    assert "too large" in page.inner_text("#message")


def test_it_plays_pauses_and_plays_again(page: Page) -> None:
    steps = solve(page)
    page.locator("#speed").fill("11")
    page.click("#go")
    wait_until(lambda: "attempt 3" in page.inner_text("#robot-says"))
    page.click("#go")
    assert page.inner_text("#go") == "Play"
    page.locator("#results button").last.click()
    page.click("#go")
    wait_until(lambda: page.inner_text("#go") == "Play")
    assert f"step {steps[-1]} of {steps[-1]}, at the exit" in page.inner_text("#robot-says")
    page.click("#again")
    wait_until(lambda: "attempt 1 " in page.inner_text("#robot-says"))
    page.click("#back")
    assert page.inner_text("#go") == "Play"


def test_a_change_of_the_maze_forgets_what_was_walked_in_the_other(page: Page) -> None:
    solve(page)
    page.mouse.click(*place(page, 1, 1, 21))
    assert page.locator("#results table").count() == 0
    assert page.is_disabled("#go")


def test_the_run_is_watched_as_it_goes_on(page: Page, served: Served) -> None:
    page.click("#to-watch")
    wait_until(lambda: page.inner_text("#watching") == "39 updates")
    assert page.locator("#charts svg").count() == 4
    assert history.point(record_of(39)).actors == 2
    assert "at work 2" in page.inner_text("#charts")
    with (Path(served.process.args[1]) / "updates.jsonl").open("ab") as file:
        file.write(record_of(40).line)
    wait_until(lambda: page.inner_text("#watching") == "40 updates")
    page.click("#to-play")
    assert page.is_visible("#robot")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 700, 1280])
def test_it_fits_screens_of_any_width_in_the_dark_and_in_the_light(page: Page, scheme: Any, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    solve(page)
    for part in ("#to-watch", "#to-play"):
        page.click(part)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    shades = json.loads(page.evaluate(COLOURS))
    paper, ink = (luminance(shades[name]) for name in ("paper", "ink"))
    assert (paper > ink) == (scheme == "light")
    for name in ("ink", "faint", "trail-to", "known", "hopeful", "weights", "exit", "trap", "marks"):
        assert contrast(shades[name], shades["floor"]) >= 3, name


COLOURS = """JSON.stringify(Object.fromEntries(
    "paper ink faint floor trail-to known hopeful weights exit trap marks".split(" ").map((name) =>
        [name, getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim()])))"""


def luminance(colour: str) -> float:
    """Relative luminance, as https://www.w3.org/TR/WCAG22/#dfn-relative-luminance has it."""
    parts = np.array([int(part, 16) / 255 for part in re.findall("..", colour.removeprefix("#"))])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, from 1 to 21; 3 is what WCAG asks of graphics."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)
