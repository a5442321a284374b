"""The policy on the table against the network evaluated for one state at a time."""

from __future__ import annotations

import pytest
import torch

from protocol.config import Config, MazeConfig, PolicyConfig
from protocol.learning.policy import Params, Scene, log_policy, shapes
from protocol.world.maze import Mazes
from protocol.world.states import StateTable
from tests import stepwise
from tests.oracle import Drawing

TEXTS = ["S.#..\n#.#.#\n#....\n#.###\n..E..", "S....\n.###.\n....E\n.####\n.####"]


def config(radius: int = 1) -> Config:
    return Config(maze=MazeConfig(side=5), policy=PolicyConfig(hidden=6, radius=radius))


def scene(texts: list[str], radius: int = 1) -> Scene:
    table = StateTable.of(Mazes.from_text("\n\n".join(texts)), radius)
    return Scene.of(table, torch.device("cpu"), torch.float64)


def random_parameters(settings: Config, mazes: int) -> Params:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(mazes, *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes(settings).items()
    }


@pytest.mark.parametrize("radius", [1, 2])
def test_log_policy_is_the_network_in_each_state_under_the_parameters_of_its_maze(radius: int) -> None:
    phi = random_parameters(config(radius), len(TEXTS))
    log_MSA = log_policy(phi, scene(TEXTS, radius))
    for maze, text in enumerate(TEXTS):
        own = {name: value[maze] for name, value in phi.items()}
        drawing = Drawing(text)
        for row, state in enumerate(drawing.states()):
            plain_A = stepwise.log_policy(own, drawing, state, radius)
            torch.testing.assert_close(log_MSA[maze, row], plain_A, rtol=0, atol=1e-12)


def test_every_row_is_a_distribution_and_padding_is_finite() -> None:
    log_MSA = log_policy(random_parameters(config(), 2), scene(TEXTS))
    torch.testing.assert_close(log_MSA.exp().sum(-1), torch.ones_like(log_MSA[..., 0]))


def test_a_maze_depends_on_its_own_parameters_alone() -> None:
    phi = {name: value.requires_grad_() for name, value in random_parameters(config(), 2).items()}
    log_policy(phi, scene(TEXTS))[1].sin().sum().backward()  # type: ignore[no-untyped-call]
    for name, value in phi.items():
        assert value.grad is not None
        assert value.grad[0].count_nonzero() == 0, name
        assert value.grad[1].count_nonzero() > 0, name


def test_a_maze_has_the_same_policy_alone_and_among_others() -> None:
    phi = random_parameters(config(), 2)
    together = log_policy(phi, scene(TEXTS))
    for maze, text in enumerate(TEXTS):
        alone = log_policy({name: value[maze : maze + 1] for name, value in phi.items()}, scene([text]))
        torch.testing.assert_close(together[maze, : alone.shape[1]], alone[0], rtol=0, atol=1e-12)


def test_the_scene_takes_the_precision_that_it_is_given() -> None:
    assert scene(TEXTS).seen_MCB.dtype == torch.float64
    table = StateTable.of(Mazes.from_text(TEXTS[0]), 1)
    assert Scene.of(table, torch.device("cpu")).seen_MCB.dtype == torch.float32
