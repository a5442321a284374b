"""The list of rivals: what each does in plain words, where it comes from, and how it plays.

A rival that is a training run of clew with other settings is one entry here, made by `trained`; clew is the first.
"""

from __future__ import annotations

from deploy.compare import minds, tabular
from deploy.compare.gradient import policy_gradient
from deploy.compare.played import SHOWN, Played
from deploy.compare.rival import KINDS, OURS, Rival, Settings, Task, changed, rng_of, trained, untrained
from deploy.compare.tabular import Progress
from deploy.study.explorer import DepthFirst
from protocol.config import ClewError

# Actions, values and gradients of a single maze take no dreams: those are a planner's.
GRADIENT: Settings = {
    "policy.kind": "fast-weights",
    "policy.dreams": False,
    "inner.credit_features": (),
    "inner.credit": "cell-advantage",
}
STEPS: Settings = GRADIENT | {
    "inner.adapts": "cells",
    "inner.steps": 9,
    "inner.attempts": 1,
    "inner.cell_step_size": 50.0,
    "outer.attempts": 1,
    "outer.exploration": 0.0,
}
MAML: Settings = STEPS | {"inner.rule": "sgd", "inner.estimator": "maml"}
JOINTLY: Settings = GRADIENT | {
    "inner.rule": "sgd",
    "inner.adapts": "cells",
    "inner.estimator": "first-order",
    "inner.steps": 1,
    "inner.attempts": 3,
    "inner.cell_step_size": 0.0,
    "outer.attempts": 1,
    "outer.exploration": 0.0,
}
RECURRENT: Settings = GRADIENT | {
    "policy.kind": "recurrent",
    "policy.hidden": 64,
    "inner.rule": "learned",
    "inner.adapts": "cells",
    "inner.steps": 9,
    "inner.attempts": 1,
    "outer.attempts": 1,
    "outer.exploration": 1.0,
    "outer.learning_rate": 0.003,
    "outer.max_gradient_norm": 1.0,
    "run.lease_timeout_s": 60.0,  # its attempts are long at first
}
NOTHING: Settings = JOINTLY | {
    "policy.memory": "none",
    "inner.attempts": 5,
    "inner.cell_step_size": 20.0,  # tried on training mazes: at 50 and more, some robots end up going in circles
    "inner.discount": 0.95,
}


def _q_learning(task: Task, progress: Progress) -> Played:
    """Plays tabular Q-learning for as long as it takes."""
    sees = task.config.policy.radius > 0
    learner = tabular.QLearning(task.exam, task.config.run.discount, sees, rng_of(task, "q-learning"))
    return tabular.until_learned(learner.attempt, task.exam, SHOWN, task.most, progress)


def _policy_gradient(task: Task, progress: Progress) -> Played:
    """Plays policy gradient from nothing for as long as it takes."""
    config = changed(task.config, {**NOTHING, "run.seed": task.seed})
    attempts = policy_gradient(task.exam, config, rng_of(task, "policy-gradient"))
    return tabular.until_learned(attempts, task.exam, SHOWN, task.most, progress)


RIVALS = (
    trained(
        OURS,
        "clew: the learned rule",
        KINDS[0],
        "Trained on many mazes to learn a new one: how attempts change the policy, and when to hope for a shorter way "
        "and when to settle for the known one, is itself learned.",
        "clew's default; fast weights: Schmidhuber, 1992; dreams: Sutton's Dyna, 1990.",
        {"policy.kind": "fast-weights"},
    ),
    trained(
        "meta-sgd",
        "Meta-SGD",
        KINDS[0],
        "Trained on many mazes: the start and the size of a step are learned; the step itself is a plain policy "
        "gradient on the fast weights, after every attempt. It imagines nothing.",
        "Li et al., arXiv:1707.09835.",
        STEPS | {"inner.rule": "meta-sgd"},
    ),
    trained(
        "meta-sgd-dreams",
        "Meta-SGD with dreams",
        KINDS[0],
        "Meta-SGD that imagines ways through what it knows, as clew does, without a learned credit: whichever way is "
        "the shorter is followed. It shows what dreams alone are worth.",
        "Li et al., arXiv:1707.09835; Dyna: Sutton, 1990.",
        STEPS
        | {"inner.rule": "meta-sgd", "inner.cell_step_size": 5.0}
        | {"policy.dreams": True, "policy.memory": "attempts"},
    ),
    trained(
        "maml",
        "MAML",
        KINDS[0],
        "Trained on many mazes to be a good start for policy gradient steps of a fixed size, one after every attempt. "
        "As in CAVIA, the steps change a part of the policy, its fast weights, and leave the network as it is.",
        "Finn et al., arXiv:1703.03400; CAVIA: Zintgraf et al., arXiv:1810.03642.",
        MAML,
    ),
    trained(
        "first-order",
        "first-order MAML",
        KINDS[0],
        "MAML that pretends, in training, that its steps do not depend on where they start.",
        "Finn et al., arXiv:1703.03400, section 5.2; Nichol et al., arXiv:1803.02999.",
        MAML | {"inner.estimator": "first-order"},
    ),
    trained(
        "e-maml",
        "E-MAML",
        KINDS[0],
        "MAML whose first attempts are also credited with what the later ones learn from them: it explores on purpose.",
        "Stadie et al., arXiv:1803.01118.",
        MAML | {"outer.exploration": 1.0},
    ),
    trained(
        "rl2",
        "RL²",
        KINDS[0],
        "Trained on many mazes: a recurrent network that is fed what it senses, its last move, and how each attempt "
        "ended. Its state goes on from attempt to attempt, and is all that it learns of a maze.",
        "Duan et al., arXiv:1611.02779; Wang et al., arXiv:1611.05763.",
        RECURRENT | {"policy.memory": "none"},
        updates=0.3,
    ),
    trained(
        "rl2-memory",
        "RL² with clew's memory",
        KINDS[0],
        "RL², whose network also senses where it has been, in this attempt and in earlier ones.",
        "Duan et al., arXiv:1611.02779, and the marks of Trémaux.",
        RECURRENT | {"policy.memory": "attempts"},
        updates=0.3,
    ),
    trained(
        "no-adaptation",
        "no adaptation",
        KINDS[1],
        "One policy trained on many mazes to do well in any of them. Each attempt is like the first: nothing is "
        "carried over. (Within an attempt it remembers where it has been.)",
        "Domain randomisation: Tobin et al., arXiv:1703.06907.",
        JOINTLY,
        each=SHOWN,
    ),
    trained(
        "fine-tuned",
        "trained jointly, then fine-tuned",
        KINDS[1],
        "One policy trained on many mazes to do well in any of them, then changed by a policy gradient step after "
        "every attempt. Its training knew nothing of these steps: no gradient went through them.",
        "The baseline 'pretrained' of Finn et al., arXiv:1703.03400.",
        JOINTLY,
        plays={"inner.cell_step_size": 50.0},
        each=1,
    ),
    Rival(
        "q-learning",
        "Q-learning from nothing",
        KINDS[2],
        "Ordinary reinforcement learning in this maze alone: a table of how good each move in each cell is. It begins "
        "by thinking the best of every move, so it tries them all, and goes on until it walks the shortest way.",
        "Watkins and Dayan, Machine Learning 8, 1992; optimistic values: Koenig and Simmons, AAAI 1993.",
        _q_learning,
    ),
    Rival(
        "policy-gradient",
        "policy gradient from nothing",
        KINDS[2],
        "Ordinary reinforcement learning in this maze alone, with clew's own policy: what led to the exit quickly is "
        "made more likely, five attempts at a time. It starts from random parameters.",
        "REINFORCE: Williams, Machine Learning 8, 1992.",
        _policy_gradient,
    ),
    untrained(
        "explorer",
        "depth-first explorer",
        "Goes wherever it has not been, turns back at dead ends, forgets nothing; once it has found the exit, it takes "
        "the best way that it knows, for ever.",
        "Lucas, Récréations mathématiques, 1882, after Trémaux.",
        DepthFirst,
    ),
    untrained(
        "planner",
        "optimistic planner",
        "Goes to the nearest cell where it has never been; once it has found the exit, it always takes the way that "
        "would be shortest if all that it has not seen were free.",
        "D* Lite: Koenig and Likhachev, AAAI 2002.",
        minds.Planner,
        compass=False,
    ),
    untrained(
        "planner-compass",
        "optimistic planner, told where the exit is",
        "An optimistic planner that knows from the start where the exit is, as a micromouse does. It plays another "
        "game than those who must look for the exit.",
        "D* Lite: Koenig and Likhachev, AAAI 2002; the flood fill of micromouse competitions.",
        minds.Planner,
        compass=True,
    ),
    untrained(
        "planner-cautious",
        "cautious planner",
        "A planner that takes the way with the fewest cells where it has never been: in mazes with traps, the way on "
        "which it is likeliest to live. Once it has found an exit, it keeps to the best way that it knows.",
        "The free-space assumption of D* Lite (Koenig and Likhachev, AAAI 2002), with a price on what is unknown.",
        minds.CautiousPlanner,
    ),
    untrained(
        "lrta",
        "LRTA*",
        "Keeps an estimate of the steps to the exit for each cell, goes to the neighbour whose estimate is least, and "
        "raises the estimate that it leaves. From attempt to attempt the estimates come true.",
        "Learning real-time A*: Korf, Artificial Intelligence 42, 1990.",
        minds.RealTimeSearch,
    ),
    untrained(
        "random",
        "random walk",
        "Draws its moves. What is not clearly better than this has learned nothing.",
        "Pearson, Nature 72, 1905.",
        minds.RandomWalk,
    ),
)


def chosen(names: list[str] | None, quick: bool = False) -> tuple[Rival, ...]:
    """Returns the rivals with these names, or all; if `quick`, all that do not take long to train.

    Raises ClewError at an unknown name.
    """
    known = {rival.name: rival for rival in RIVALS}
    for name in names or ():
        if name not in known:
            raise ClewError(f"there is no rival '{name}'; choose from {', '.join(known)}")
    wanted = names or [rival.name for rival in RIVALS if not quick or rival.updates == 1.0]
    return tuple(rival for rival in RIVALS if rival.name in wanted)
