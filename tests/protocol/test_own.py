"""Families, credit and what a credit network knows, as functions of a user's own module: nothing of clew is edited."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from actors.actor import admitted
from actors.rollout import collect
from protocol import own
from protocol.compiled import compiled
from protocol.config import ClewError, Config, InnerConfig, MazeConfig
from protocol.learning.inner import CREDIT_UNITS, initial_theta, unflatten
from protocol.wire.contract import own_contract
from protocol.world.cells import EXIT, WALL
from protocol.world.families import sample, try_out
from protocol.world.maze import held_out
from tests import ROOT
from tests.deploy.test_cli import TINY, assert_refused, clew
from tests.parts.parties import Party, Place, place

__all__ = ["place"]  # a fixture

MODULE = '''
"""Mazes and credit that clew does not have."""

import numpy as np

from protocol.learning.credit import cell_advantage


def combs(rng, side):
    """Every second row is a wall with one gap."""
    walls = np.zeros((side, side), dtype=bool)
    walls[1::2] = True
    walls[np.arange(1, side, 2), rng.integers(side, size=side // 2)] = False
    return walls


def solid(rng, side):
    return np.ones((side, side), dtype=int)


def narrow(rng, side):
    return np.zeros((side, side - 1), dtype=bool)


def time(steps):
    """Which share of the attempt's time is over."""
    return steps.time_N / steps.horizon_W[steps.attempt_N]


def advantage(steps):
    return cell_advantage(steps.returns_to_go(0.9), steps.walk.at_N, steps.mazes.cells)


def short(steps):
    return steps.time_N[1:]


def endless(steps):
    return 1 / np.zeros(len(steps.time_N))


number = 7


def broken(*arguments):
    return np.zeros(3)[3]
'''
COMBS = ("--set", "maze.family=[perfect,mine:combs]", "--set", "inner.credit_features=mine:time")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's module `mine`, where Python finds it."""
    path = tmp_path / "mine.py"
    path.write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield path
    forget("mine")


def forget(module: str) -> None:
    """Forgets a module, as a new process would know nothing of it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        del sys.modules[name]
    own.function.cache_clear()
    own.sources.cache_clear()


def config_of(**inner: Any) -> Config:
    return Config.model_validate(
        {
            "maze": {"family": ["perfect", "mine:combs"], "side": 7},
            "policy": {"dreams": False},  # where there is a dream, it stands in place of what was learned
            "inner": {"steps": 2, **inner},
            "run": {"mazes": 6, "mazes_per_lease": 6},
        }
    )


# Families


def test_mazes_of_a_family_of_ones_own_have_its_walls_and_are_solvable_and_split(mine: Path) -> None:
    config = MazeConfig.model_validate({"family": "mine:combs", "side": 8, "traps": 0.1})
    for side in (False, True):
        mazes = sample(config, 30, np.random.default_rng(3), held_out=side)
        kind_MRC = mazes.cell_C.reshape(30, 8, 8)
        assert ((kind_MRC[:, 1::2] != WALL).sum(axis=2) == 1).all()
        assert (kind_MRC[:, ::2] != WALL).all()
        assert ((kind_MRC == EXIT).sum(axis=(1, 2)) == 1).all()
        assert (held_out(mazes) == side).all()
        again = sample(config, 30, np.random.default_rng(3), held_out=side)
        assert np.array_equal(mazes.cell_C, again.cell_C)


def test_a_start_in_a_wall_is_made_free(mine: Path) -> None:
    with pytest.raises(ClewError, match=r"only 0 of .* mazes of family 'mine:solid'"):  # it alone is
        sample(MazeConfig(family="mine:solid", side=5), 1, np.random.default_rng(0), held_out=False)


def test_a_family_of_ones_own_is_one_of_a_list(mine: Path) -> None:
    config = MazeConfig(family=("perfect", "mine:combs"), side=9)
    drawn = [sample(config, 1, np.random.default_rng(seed), held_out=False).cell_C for seed in range(20)]
    combs = [bool((cell_C.reshape(9, 9)[::2] != WALL).all()) for cell_C in drawn]
    assert 3 < sum(combs) < 17


@pytest.mark.parametrize(
    ("family", "sentence"),
    [
        ("mine:narrow", r"family 'mine:narrow' must return an array \[7, 7\] of booleans.*got shape \[7, 6\] of bool"),
        ("mine:spirals", "module 'mine' has no function 'spirals'"),
        ("mine:number", "module 'mine' has no function 'number'"),
        ("nowhere:combs", "no Python source of module 'nowhere' here.*put nowhere.py into the working directory"),
        ("sys:exit", "no Python source of module 'sys'"),
        ("__main__:combs", "no Python source of module '__main__'"),
    ],
)
def test_what_draws_no_mazes_is_refused_in_one_sentence(mine: Path, family: str, sentence: str) -> None:
    with pytest.raises(ClewError, match=sentence):
        try_out(MazeConfig(family=family, side=7))


@pytest.mark.parametrize(
    "name", ["mine", "mine:", ":combs", "mine.py:combs()", "../mine:combs", "mine:a:b", "mine combs"]
)
def test_what_is_no_name_of_a_function_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="a function of your own, 'MODULE:FUNCTION'"):
        MazeConfig(family=name)
    with pytest.raises(ValidationError, match="a function of your own, 'MODULE:FUNCTION'"):
        InnerConfig.model_validate({"credit_features": [name]})


def test_a_config_is_read_without_importing_what_it_names(mine: Path) -> None:
    config = config_of(credit_features=["mine:time"])
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert config.own == ("mine:combs", "mine:time")
    assert "mine" not in sys.modules


# Credit


def test_credit_of_ones_own_that_says_what_clew_says_changes_no_bit(mine: Path) -> None:
    configs = [config_of(rule="sgd", credit=credit) for credit in ("mine:advantage", "cell-advantage", "mine:time")]
    one, same, other = (collect(initial_theta(config), (4,), config)[1] for config in configs)
    assert all(np.array_equal(a.log_prob, b.log_prob) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[1].log_prob, other[1].log_prob)


@pytest.mark.parametrize("machine", [True, False], ids=["numba", "numpy"])
def test_a_credit_network_hears_what_functions_of_ones_own_say(
    mine: Path, machine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not machine:
        monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    compiled.cache_clear()
    config = config_of(credit_features=["mine:time", "mine:advantage"])
    theta_P = initial_theta(config)
    named = unflatten(theta_P, config)
    assert named["credit.in"].shape == (11 + 2, CREDIT_UNITS)
    named["credit.out"][:] = 1.0
    deaf_P = theta_P.copy()
    unflatten(deaf_P, config)["credit.in"][11:] = 0.0
    heard, deaf = (collect(vector_P, (4,), config)[1] for vector_P in (theta_P, deaf_P))
    assert np.array_equal(heard[0].log_prob, deaf[0].log_prob)
    assert not np.array_equal(heard[1].log_prob, deaf[1].log_prob)
    assert all(np.isfinite(stage.log_prob).all() for stage in heard)
    compiled.cache_clear()


@pytest.mark.parametrize("name", ["mine:short", "mine:endless"])
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_is_no_number_of_every_step_is_refused_in_one_sentence(mine: Path, name: str) -> None:
    for inner in ({"credit": name}, {"credit_features": name}):
        config = config_of(**inner)
        with pytest.raises(ClewError, match=f"'{name}' must return a finite number for each of"):
            collect(initial_theta(config), (4,), config)


def test_features_are_for_a_credit_network() -> None:
    with pytest.raises(ValidationError, match=r"inner\.credit_features are for the credit network"):
        InnerConfig.model_validate({"rule": "sgd", "credit_features": ["mine:time"]})


# Whom to trust


def test_comments_and_docstrings_of_a_module_are_no_part_of_its_contract(mine: Path) -> None:
    ours = own_contract(("mine:combs",))
    contracts = []
    for old, new in (("every second", "each other"), ("side // 2", "side // 3")):
        forget("mine")
        mine.write_text(MODULE.replace(old.capitalize() if old in MODULE.lower() else old, new).replace(old, new))
        contracts.append(own_contract(("mine:combs",)))
    assert contracts[0] == ours != contracts[1]
    assert own_contract(()) == ""


def test_of_a_package_all_files_are_part_of_the_contract(mine: Path) -> None:
    folder = mine.parent / "house"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "help.py").write_text("GAP = 1\n")
    (folder / "mazes.py").write_text("from house.help import GAP\n\n\ndef drawn(rng, side):\n    return GAP\n")
    ours = own_contract(("house.mazes:drawn",))
    assert own.function("house.mazes:drawn")(None, 0) == 1
    forget("house")
    (folder / "help.py").write_text("GAP = 2\n")
    assert own_contract(("house.mazes:drawn",)) != ours
    forget("house")


def test_a_process_goes_by_the_source_that_it_has_imported(mine: Path) -> None:
    """A learner that was started anew may have another, and an actor outlives learners."""
    own.function("mine:combs")
    ours = own_contract(("mine:combs",))
    mine.write_text(MODULE.replace("side // 2", "side // 3"))
    assert own_contract(("mine:combs",)) == ours


@pytest.mark.parametrize(
    ("modules", "change", "sentence"),
    [
        ((), lambda text: text, "may not import 'mine'; if you trust that module, start the actor with --module mine"),
        (("mine.house", "min"), lambda text: text, "may not import 'mine'"),
        (("mine",), lambda text: text + "\nmore = 1\n", "the source of mine is not the learner's"),
        (("mine",), None, "no Python source of module 'mine'"),
    ],
)
def test_an_actor_imports_only_what_its_operator_names_and_only_the_learners_own(
    mine: Path, modules: tuple[str, ...], change: Callable[[str], str] | None, sentence: str
) -> None:
    config = config_of()
    learners = own_contract(config.own)
    forget("mine")
    if change:
        mine.write_text(change(MODULE))
    else:
        mine.unlink()
    with pytest.raises(ClewError, match=sentence):
        admitted(config, learners, modules)
    assert "mine" not in sys.modules


def test_the_examples_of_the_readme_work(mine: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    examples = [block for block in blocks if "def " in block]
    (mine.parent / "mazes.py").write_text("\n\n".join(examples))
    config = config_of(credit="mazes:late", credit_features=["mazes:late"])
    config = config.model_copy(update={"maze": MazeConfig(family="mazes:combs", side=9)})
    _, stages, _ = collect(initial_theta(config), (0,), config)
    assert len(stages) == 3
    forget("mazes")


# Processes


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        (
            "maze.family=mine:broken",
            r"failed \(mine\.py, line \d+, broken\) with IndexError: 'index 3 is out of bounds",
        ),
        ("inner.credit=mine:broken", r"failed \(mine\.py, line \d+, broken\) with IndexError: 'index 3 is out of"),
        ("maze.family=raising:f", r"failed \(raising\.py, line 1, <module>\) with RuntimeError: 'at once'; mend it"),
        ("maze.family=unsaid:f", r"failed with SyntaxError: .*\(unsaid\.py, line 1\)"),
    ],
)
def test_what_fails_in_a_function_of_ones_own_is_said_in_one_sentence(setting: str, fault: str, mine: Path) -> None:
    (mine.parent / "raising.py").write_text("raise RuntimeError('at once')\n")
    (mine.parent / "unsaid.py").write_text("def f(:\n")
    refused = clew("train", *TINY, "--set", setting, "--run-dir", "run", "--actors", 1, folder=mine.parent)
    assert_refused(refused, fault)


def test_any_number_of_actors_gives_the_same_theta(mine: Path) -> None:
    hashes = []
    for actors in (1, 2):
        arguments = (*TINY, *COMBS, "--updates", 8, "--actors", actors, "--run-dir", f"run{actors}")
        done = clew("train", *arguments, folder=mine.parent)
        assert done.returncode == 0, done.stderr
        lines = (mine.parent / f"run{actors}" / "updates.jsonl").read_text().splitlines()
        hashes.append([line.partition('"theta_sha256"')[2][:70] for line in lines])
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == 8
    tried = clew("evaluate", "run1", "--family", "mine:combs", "--side", 6, "--count", 3, folder=mine.parent)
    assert tried.returncode == 0, tried.stderr
    assert "mine:combs 6x6" in tried.stdout
    mine.unlink()
    assert_refused(
        clew("train", *TINY, *COMBS, "--run-dir", "another", folder=mine.parent), "no Python source of .*mine"
    )
    assert not (mine.parent / "another").exists()


@pytest.mark.parametrize(("option", "variables"), [(("--module", "mine"), {}), ((), {"CLEW_MODULES": "another mine"})])
def test_actors_of_other_machines_import_only_what_command_line_or_environment_names(
    option: tuple[str, ...], variables: dict[str, str], mine: Path, place: Place
) -> None:
    def actor(*arguments: str, **variables: str) -> Party:
        connect = ("--connect", place.address, "--metrics-port", 0)
        return place.start("actor", *connect, *arguments, variables=variables)

    mark = mine.parent / "imported"
    mine.write_text(f"{MODULE}\nopen({str(mark)!r}, 'a').close()\n")
    learner = place.learner(*COMBS)
    mark.unlink()  # the learner has
    wary = actor(CLEW_MODULES="another")
    wary.ends(2)
    wary.says(
        r"\nclew: the learner's config names 'mine:combs', and this actor may not import 'mine'; .*--module mine\n$"
    )
    assert "works for" not in wary.log.read_text()
    assert not mark.exists()
    actor(*option, **variables)
    learner.ends()
    assert mark.exists()
