"""Gathers the mazes that a policy is tried in: held-out mazes of any family and side, or those of files."""

# M mazes

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from deploy.process.logs import printable
from deploy.process.settings import explain
from protocol.config import ODD_SIDES, ClewError, Config, MazeConfig
from protocol.learning.credit import horizons
from protocol.world import families
from protocol.world.cells import Ints
from protocol.world.maze import Mazes, read_mazes, shortest_M

AT_ONCE = 100  # mazes whose ways are measured together: what that takes is many times what the mazes take


@dataclass(frozen=True)
class Exam:
    """Mazes, and the rules for trying them."""

    names: tuple[str, ...]  # [M]
    kinds: tuple[str, ...]  # [M] family and side; "" for a maze of a file
    mazes: Mazes
    shortest_M: Ints  # [M] steps on the shortest way
    horizon_M: Ints  # [M] steps after which an attempt has failed


def held_out(
    config: Config, family: str | None, side: int | None, count: int, seed: int, horizon: int | None = None
) -> Exam:
    """Draws `count` mazes that training can never have seen, as `drawn` does."""
    return of(*drawn(config.maze, family, side, count, seed), config, horizon)


def drawn(
    config: MazeConfig, family: str | None, side: int | None, count: int, seed: int, *, held_out: bool = True
) -> tuple[list[str], list[str], Mazes]:
    """Draws `count` mazes of one side of the split, and returns their names, their kinds, and them.

    They are of the run's own families and sides, or of those given instead; each pair of the two has an equal share.
    """
    rng = np.random.default_rng([seed, 1])
    settings = list(_settings(config, family, side))
    share, rest = divmod(count, len(settings))
    more = rng.permutation(len(settings)) < rest
    names, kinds, parts = [], [], []
    for setting, extra in zip(settings, more.tolist(), strict=True):
        some = share + extra
        if some:
            parts.append(families.sample(setting, some, rng, held_out=held_out))
            kinds += [kind_of(setting)] * some
            names += [f"{kind_of(setting)}:{number}" for number in range(1, some + 1)]
    return names, kinds, Mazes.concatenate(parts)


def of_files(paths: Sequence[Path], config: Config, horizon: int | None = None) -> Exam:
    """Reads all mazes of some files."""
    found = [named for path in paths for named in read_mazes(path)]
    mazes = Mazes.concatenate([named.maze for named in found])
    return of([printable(named.name) for named in found], [""] * len(found), mazes, config, horizon)


def kind_of(setting: MazeConfig) -> str:
    """Names the kind of the mazes that a setting with one family and one side draws."""
    (family,), (side,) = setting.families, setting.sides
    return family if family == "file" else f"{family} {side}x{side}"


def _settings(config: MazeConfig, family: str | None, side: int | None) -> Iterator[MazeConfig]:
    """Yields a setting for each pair of a family and a side; the mazes of a file have sides of their own."""
    if family == "file" and not config.path:
        raise ClewError("the run has no maze file to draw from; name files with --mazes FILE instead of --family file")
    sides = config.sides if side is None else (side,)
    for each in config.families if family is None else (family,):
        for one in sides[:1] if each == "file" else sides:
            if each in ODD_SIDES and one % 2 == 0:
                raise ClewError(f"the mazes of family '{each}' have odd sides, got {one}; give --side an odd number")
            yield _setting(config, each, one)


def _setting(config: MazeConfig, family: str, side: int) -> MazeConfig:
    """Returns the run's setting for one family and one side; the least distance to the exit shrinks to fit the side."""
    nearest = min(config.min_distance, 2 * (side - 1))
    changed = {"family": family, "side": side, "min_distance": nearest}
    try:
        return MazeConfig.model_validate(config.model_dump() | changed)
    except ValidationError as error:
        named = [detail | {"loc": tuple(f"--{name}" for name in detail["loc"])} for detail in error.errors()]
        raise ClewError("; ".join(map(explain, named))) from None


def of(names: Sequence[str], kinds: Sequence[str], mazes: Mazes, config: Config, horizon: int | None = None) -> Exam:
    """Makes an exam of any mazes, with the run's horizons, or with one horizon for all."""
    some = range(0, len(mazes), AT_ONCE)
    steps_M = np.concatenate([shortest_M(mazes[first : first + AT_ONCE]) for first in some])
    horizon_M = horizons(mazes, config)
    if horizon is not None:
        _check(horizon, names, steps_M)
        horizon_M = np.full(len(mazes), horizon, np.int32)
    return Exam(tuple(names), tuple(kinds), mazes, steps_M, horizon_M)


def _check(horizon: int, names: Sequence[str], steps_M: Ints) -> None:
    """Refuses a horizon in which a maze cannot be walked: a failure would look better than the shortest way."""
    beyond = np.flatnonzero(steps_M > horizon)
    if not beyond.size:
        return
    worst = int(steps_M.argmax())
    raise ClewError(
        f"--horizon {horizon} is too short: the shortest way of maze {names[worst]} takes {steps_M[worst]} steps, "
        f"and {beyond.size} of {len(names)} mazes are too long for it; give --horizon {steps_M[worst]} or more"
    )
