"""Films an adaptation as a GIF: the attempts of a robot in one maze, side by side, as they happen."""

# M mazes, P parameters

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from deploy.study import pixels, routes
from deploy.study.evaluate import Evaluation
from deploy.study.routes import Route, Shown
from protocol.config import ClewError, Config
from protocol.world.cells import Floats

WIDTH = 1040  # pixels, about
MOVING = 160  # frames at most while robots move; of longer ways several steps are taken at a time
FRAME_MS, STILL_MS = 70, 2_500  # how long a frame is seen, and the last of them
HEAD, GAP, LETTER = 44, 16, 15  # pixels above a maze, beside it, and of a letter
PAPER, INK = "#ffffff", "#222222"


def write(run_dir: Path, theta_P: Floats, config: Config, result: Evaluation, seed: int) -> None:
    """Writes adaptation.gif of an evaluation: a typical maze, at the first three attempts and the last."""
    shown = routes.shown(result, theta_P, config, seed)[0]
    heads = [f"attempt {result.labels[stage]}" for stage in routes.stages_shown(result)]
    pictures = list(frames(shown, heads))
    palette = _beside(pictures[0], pictures[-1]).quantize(64)
    first, *others = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [FRAME_MS] * len(others) + [STILL_MS]
    path = run_dir / "adaptation.gif"
    try:
        first.save(path, save_all=True, append_images=others, duration=durations, loop=0)
    except OSError as error:
        raise ClewError(f"cannot write {path}: {error.strerror}; make room or give access") from None


def _beside(*pictures: Image.Image) -> Image.Image:
    """Puts pictures of one size side by side."""
    both = Image.new("RGB", (len(pictures) * pictures[0].width, pictures[0].height))
    for number, picture in enumerate(pictures):
        both.paste(picture, (number * picture.width, 0))
    return both


def frames(shown: Shown, heads: Sequence[str]) -> Iterator[Image.Image]:
    """Yields a picture for each moment, until all attempts have ended. `heads`: what stands above each attempt."""
    longest = max(len(route.cells) for route in shown.routes) - 1
    pace = -(-longest // MOVING)
    for step in range(0, longest + pace, pace):
        yield _frame(shown, heads, step)


def _frame(shown: Shown, heads: Sequence[str], step: int) -> Image.Image:
    """Draws all attempts after a number of steps."""
    tile = pixels.tile_of(shown.maze, WIDTH // len(heads) - GAP)
    rows, columns = (shown.maze.shape_M2[0] * tile).tolist()
    wide = max(columns, 10 * LETTER)
    picture = Image.new("RGB", (GAP + len(heads) * (wide + GAP), HEAD + rows + GAP), PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(LETTER)
    for number, (head, route) in enumerate(zip(heads, shown.routes, strict=True)):
        left = GAP + number * (wide + GAP)
        painted = pixels.painted(shown.maze, route.cells[: step + 1], tile, len(route.cells) - 1)
        picture.paste(Image.fromarray(painted), (left, HEAD))
        pen.text((left, 4), head, INK, font)
        pen.text((left, 6 + LETTER), _told(route, step, len(shown.shortest.cells) - 1), INK, font)
    return picture


def _told(route: Route, step: int, shortest: int) -> str:
    """Says how far an attempt has come."""
    steps = len(route.cells) - 1
    if step < steps:
        return f"{step} steps"
    if not route.found:
        return f"{steps} steps, no exit"
    return f"{steps} steps" + (", the shortest way" if steps == shortest else "")
