"""The policy network: pi(a | s) as a pure function of (parameters, table), once per state and never per time-step.

One hidden layer over what the robot senses: logits(s) = W relu(cell + row + column + seen + previous + b) + c. A
policy that must be evaluated per step (a recurrent one) would replace `log_policy` by a function of the attempts.
"""

# M mazes, S states, A moves, C cells, B cells seen, H hidden units

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from protocol.config import Config
from protocol.world.maze import MOVES, NO_MOVE
from protocol.world.states import StateTable

Params = dict[str, Tensor]


@dataclass(frozen=True)
class Scene:
    """A StateTable on a device: what the mathematics reads of M mazes. Rows count through all mazes."""

    mazes: int  # M
    states: int  # S
    cells: int  # C
    seen_MCB: Tensor  # [M, C, B]
    cell_MS: Tensor  # [M*S] row of the state's cell among the M*C cells
    previous_MS: Tensor  # [M*S] row of the state's last move among the M*5 of all mazes
    next_MSA: Tensor  # [M*S*A] row of the state that follows; M*S for the exit
    distance_MS: Tensor  # [M*S + 1] steps to the exit; 0 for the exit itself

    @staticmethod
    def of(table: StateTable, device: torch.device, dtype: torch.dtype = torch.float32) -> Scene:
        """`table` as tensors on `device`; what is real-valued becomes `dtype`."""
        mazes, states = table.cell_MS.shape
        maze_M1 = np.arange(mazes)[:, None]
        row_MSA = table.next_MSA + maze_M1[:, :, None] * states
        next_MSA = np.where(table.next_MSA == table.exit_state, mazes * states, row_MSA)

        def rows(array: np.typing.NDArray[np.integer]) -> Tensor:
            return torch.from_numpy(array.astype(np.int64)).flatten().to(device)

        return Scene(
            mazes=mazes,
            states=states,
            cells=table.side**2,
            seen_MCB=torch.from_numpy(table.seen_MCB).to(device, dtype),
            cell_MS=rows(table.cell_MS + maze_M1 * table.side**2),
            previous_MS=rows(table.previous_MS + maze_M1 * (NO_MOVE + 1)),
            next_MSA=rows(next_MSA),
            distance_MS=torch.cat(
                [rows(table.distance_MS), torch.zeros(1, dtype=torch.int64, device=device)]
            ),
        )


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """The policy's parameters phi and their shapes."""
    side, hidden = config.maze.side, config.policy.hidden
    return {
        "cell": (side * side, hidden),
        "row": (side, hidden),
        "column": (side, hidden),
        "seen": ((2 * config.policy.radius + 1) ** 2 - 1, hidden),
        "previous": (NO_MOVE + 1, hidden),
        "bias": (hidden,),
        "out": (hidden, len(MOVES)),
        "out_bias": (len(MOVES),),
    }


def log_policy(phi: Params, scene: Scene) -> Tensor:
    """[M, S, A] log pi(a | s) in every state, for parameters of each maze's own, each [M, ...]."""
    place_Mnn = (phi["row"].unsqueeze(2) + phi["column"].unsqueeze(1)).flatten(1, 2)
    cell_MC = phi["cell"] + place_Mnn + phi["bias"].unsqueeze(1) + scene.seen_MCB @ phi["seen"]
    hidden = cell_MC.flatten(0, 1).index_select(0, scene.cell_MS)
    hidden = hidden + phi["previous"].flatten(0, 1).index_select(0, scene.previous_MS)
    logits = torch.relu(hidden).view(scene.mazes, scene.states, -1) @ phi["out"] + phi["out_bias"].unsqueeze(
        1
    )
    return torch.log_softmax(logits, dim=-1)
