"""`clew evaluate --film`: what moves in it is what was evaluated."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from deploy.study import film, pixels
from deploy.study.film import frames
from deploy.study.routes import Route, Shown
from protocol.world.maze import Mazes
from tests import ROOT
from tests.deploy.test_cli import clew, trained

__all__ = ["trained"]  # a fixture

MAZE = Mazes.from_text("S.#\n..H\n#.E")
SHORT, LONG = Route(np.array([0, 3, 4, 7, 8]), True), Route(np.array([0, 1, 0, 1, 4, 5]), False)


def colours(picture: pixels.Picture, row: int, column: int, tile: int) -> set[tuple[int, ...]]:
    """The colours in a cell."""
    cell = picture[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
    return {tuple(colour) for colour in cell.reshape(-1, 3).tolist()}


def test_a_picture_shows_where_the_robot_is_and_has_been() -> None:
    picture = pixels.painted(MAZE, SHORT.cells[:3], 16)
    names = ("STONE", "FLOOR", "EARLY", "LATE", "ROBOT_MARK", "START_MARK", "EXIT_MARK", "TRAP_MARK")
    mark = {name: tuple(pixels.rgb(getattr(pixels, name)).tolist()) for name in names}
    for row, column, name in ((1, 1, "ROBOT_MARK"), (0, 0, "START_MARK"), (2, 2, "EXIT_MARK"), (1, 2, "TRAP_MARK")):
        assert mark[name] in colours(picture, row, column, 16)
    assert colours(picture, 0, 2, 16) == {mark["STONE"]}
    assert colours(picture, 0, 1, 16) == colours(picture, 2, 1, 16) == {mark["FLOOR"]}
    assert mark["EARLY"] in colours(picture, 0, 0, 16)
    assert mark["LATE"] in colours(picture, 1, 1, 16)


def test_a_way_keeps_its_colours_while_it_grows() -> None:
    before, after = (pixels.painted(MAZE, SHORT.cells[:seen], 16, steps=4) for seen in (4, 5))
    changed = (before != after).any(axis=2)
    assert changed[32:].any()
    assert not changed[:32].any()


def test_a_film_ends_when_the_longest_attempt_does() -> None:
    shown = Shown("maze", MAZE, (LONG, SHORT), (0.0, 1.0), SHORT)
    pictures = [np.asarray(picture) for picture in frames(shown, ["attempt 1", "attempt 2"])]
    assert len(pictures) == 6
    assert len({picture.tobytes() for picture in pictures}) == 6
    half = pictures[0].shape[1] // 2
    assert (pictures[4][film.HEAD :, half:] == pictures[5][film.HEAD :, half:]).all()
    assert (pictures[4][:, :half] != pictures[5][:, :half]).any()


def test_a_long_way_takes_no_more_frames_than_there_may_be() -> None:
    long = Route(np.array([0, 1] * 500 + [4]), True)
    assert len(list(frames(Shown("maze", MAZE, (long,), (1.0,), SHORT), ["attempt 1"]))) <= film.MOVING + 1


def test_evaluate_writes_a_film_of_the_attempts(trained: Path) -> None:
    result = clew("evaluate", trained, "--count", 5, "--side", 9, "--film", folder=trained)
    assert (result.returncode, result.stderr) == (0, "")
    with Image.open(trained / "adaptation.gif") as picture:
        assert picture.n_frames > 8  # type: ignore[attr-defined]
        assert picture.width > 3 * picture.height


def test_the_readme_opens_with_a_film() -> None:
    first = re.findall(r"!\[.*\]\((.*)\)", (ROOT / "README.md").read_text())[0]
    assert (ROOT / first).read_bytes().startswith(b"GIF89a")
    assert (ROOT / first).stat().st_size < 1_000_000
