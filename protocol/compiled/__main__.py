"""Compiles everything beforehand, so that no process has to when it starts: `python -m protocol.compiled`."""

# W attempts, N steps of all attempts

from __future__ import annotations

from protocol.compiled import compiled
from protocol.config import Config
from protocol.learning.credit import horizons
from protocol.learning.inner import initial_theta
from protocol.learning.play import replay
from protocol.learning.trial import lease_trial
from protocol.world.memory import Known
from protocol.world.senses import Observations, Sight


def main() -> None:
    """Walks through a few mazes with every part of the machine code, and once more as the learner does."""
    config = Config()
    mazes, trial = lease_trial(initial_theta(config), (0,), config)
    first, known = trial.walks[0], Known.nothing(mazes.cells)
    met = Observations(Sight.of(mazes, config.policy))
    replay(met, known, horizons(mazes, config), first.length_W, first.move_N)
    if machine := compiled("credit"):
        machine.numbered(first.at_N)
    state = {"policy": {"kind": "recurrent", "dreams": False}, "inner": {"steps": 1}}
    recurrent = Config.model_validate(state | {"run": {"mazes": 1, "mazes_per_lease": 1}})
    lease_trial(initial_theta(recurrent), (0,), recurrent)
    print(f"numba {'has compiled the walk' if machine else 'is not there; all runs without it, several times slower'}")


if __name__ == "__main__":
    main()
