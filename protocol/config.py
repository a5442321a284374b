"""Every setting of clew in one validated tree. The learner owns it; actors receive it in Welcome."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ClewError(Exception):
    """An error that a user can mend; its one sentence says what came, what was wanted, and the remedy."""


class Section(BaseModel):
    """A part of the tree: unknown keys and values out of range are errors, and nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")  # MODULE:FUNCTION, as `protocol.own` resolves it


def named_of(*known: str) -> AfterValidator:
    """Makes a validator of names: of those that are known, and of functions of the user's own. It imports nothing."""

    def check(name: str) -> str:
        if name in known or OWN.fullmatch(name):
            return name
        listed = f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}, or " if known else ""
        raise PydanticCustomError("named", f"Input should be {listed}a function of your own, 'MODULE:FUNCTION'")

    return AfterValidator(check)


MAX_SIDE = 127  # cells along one edge of any maze
Family = Annotated[str, named_of("perfect", "braided", "blocks", "rooms", "mouse", "file")]
ODD_SIDES = ("perfect", "braided", "rooms", "mouse")  # families whose rooms lie in every second row and column
Credit = Annotated[str, named_of("policy-gradient", "cell-advantage")]
Feature = Annotated[str, named_of()]
Side = Annotated[int, Field(ge=5, le=MAX_SIDE)]


def _one_or_several(value: object, name: str, kind: Any) -> object:
    """Reads a setting that takes one value or a tuple of several, also from text such as "[9, 13]"."""
    if isinstance(value, str) and ("," in value or value.startswith("[")):
        listed = value.strip().removeprefix("[").removesuffix("]")
        value = [part.strip(" \"'") for part in listed.split(",")] if listed.strip() else []
    if not isinstance(value, list | tuple):
        return TypeAdapter(kind).validate_python(value)
    values: tuple[object, ...] = TypeAdapter(tuple[kind, ...]).validate_python(value)
    if not values:
        raise ValueError(f"{name} is an empty list; name one value or more")
    for one in values:
        if values.count(one) > 1:
            raise ValueError(f"{name} lists {one!r} twice; name each value once")
    return values


def _families(value: object) -> object:
    """Reads maze.family."""
    return _one_or_several(value, "maze.family", Family)


def _sides(value: object) -> object:
    """Reads maze.side."""
    return _one_or_several(value, "maze.side", Side)


def _features(value: object) -> object:
    """Reads inner.credit_features, which may be none."""
    if value in ([], (), "[]"):
        return ()
    one_or_several = _one_or_several(value, "inner.credit_features", Feature)
    return (one_or_several,) if isinstance(one_or_several, str) else one_or_several


class MazeConfig(Section):
    """The mazes to draw. A lease draws one of the families and one of the sides, each as likely as the others."""

    # The families, one or a list; 'MODULE:FUNCTION' is one of your own, as `walls.of_ones_own` says.
    family: Annotated[Family | tuple[Family, ...], BeforeValidator(_families)] = (
        "perfect",
        "braided",
        "blocks",
        "rooms",
    )
    # Cells along one edge (n), one number or a list.
    side: Annotated[Side | tuple[Side, ...], BeforeValidator(_sides)] = (9, 15)
    # corner: the start is (0, 0); random: any free cell.
    start: Literal["corner", "random"] = "corner"
    # corner: the exit is (n-1, n-1); center: the middle cells are exits, up to four of them (nine
    # in family 'blocks'); random: as many as `exits` says.
    exit: Literal["corner", "random", "center"] = "random"
    exits: Annotated[int, Field(ge=1, le=16)] = 1  # random exits of a maze
    min_distance: Positive = 4  # steps from the start to a random exit, at least
    traps: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0  # share of free cells, start and exits aside, that are traps
    braid: Share = 0.5  # share of dead ends opened, families 'braided' and 'mouse'
    density: Annotated[float, Field(ge=0.0, le=0.6)] = 0.3  # share of cells blocked, family 'blocks'
    path: str = ""  # the maze file, family 'file', whose mazes keep their own sides, exits and traps

    @property
    def families(self) -> tuple[Family, ...]:
        """Returns the families that leases draw from."""
        return self.family if isinstance(self.family, tuple) else (self.family,)

    @property
    def sides(self) -> tuple[int, ...]:
        """Returns the sides that leases draw from, in cells; family 'file' ignores them."""
        return self.side if isinstance(self.side, tuple) else (self.side,)

    @property
    def most_cells(self) -> int:
        """Returns the most cells that a maze can have, walls included."""
        return MAX_SIDE**2 if "file" in self.families else max(self.sides) ** 2

    @model_validator(mode="after")
    def _consistent(self) -> MazeConfig:
        """Refuses settings that no maze can meet."""
        for family in self.families:
            for side in self.sides:
                if family in ODD_SIDES and side % 2 == 0:
                    raise ValueError(
                        f"maze side must be odd and at least 5 for family '{family}', got {side}; set maze.side"
                    )
        if "file" in self.families and not self.path:
            raise ValueError("maze.family 'file' needs a maze file; set maze.path")
        if self.exits > 1 and self.exit != "random":
            raise ValueError(
                f"maze.exits {self.exits} is for random exits, and maze.exit is '{self.exit}'; "
                "set maze.exit to random, or maze.exits to 1"
            )
        smallest = min(self.sides)
        if self.min_distance > 2 * (smallest - 1) and self.families != ("file",):
            raise ValueError(
                f"maze.min_distance {self.min_distance} is more than a {smallest}x{smallest} maze can offer; "
                f"set it to {2 * (smallest - 1)} or less"
            )
        return self


class PolicyConfig(Section):
    """The senses and the memory of the robot, and the network that makes a policy of them."""

    # fast-weights: a network of the observation, and fast weights of each cell, which the inner loop changes.
    # recurrent: the network of RL², whose state is all that it learns; of `inner`, only `steps` counts.
    kind: Literal["fast-weights", "recurrent"] = "fast-weights"
    hidden: Annotated[int, Field(ge=1, le=1024)] = 16  # hidden units of the one hidden layer, or of the recurrent one
    # The robot senses which of the (2r+1)^2 - 1 cells around it are walls; at 0 it is blind, and remembers its bumps.
    radius: Annotated[int, Field(ge=0, le=4)] = 1
    # attempts: it marks where it has been, in this attempt and in earlier ones; none: it remembers only its last move.
    memory: Literal["none", "attempts"] = "attempts"
    compass: bool = False  # the robot knows beforehand where the exits are
    dreams: bool = True  # it dreams of ways through what it knows, and of shorter ways through what it does not know

    @model_validator(mode="after")
    def _dreams_of_something(self) -> PolicyConfig:
        """Refuses dreams without a memory."""
        if self.dreams and self.memory == "none":
            raise ValueError(
                "a robot without memory has nothing to dream of; set policy.dreams to false, or policy.memory to "
                "attempts"
            )
        if self.dreams and self.kind == "recurrent":
            raise ValueError("a recurrent policy has no use for dreams; set policy.dreams to false")
        return self


class InnerConfig(Section):
    """The adaptation to one maze: theta' = f(theta, attempts)."""

    rule: Literal["sgd", "meta-sgd", "learned"] = "learned"
    adapts: Literal["cells", "all"] = "cells"  # the fast weights of the cells alone, or every parameter of the policy
    estimator: Literal["first-order", "maml", "lvc", "dice"] = "lvc"
    steps: Annotated[int, Field(ge=1, le=100)] = 9  # K inner steps
    attempts: Annotated[int, Field(ge=1, le=1000)] = 1  # E attempts (episodes) before each inner step
    # The credit that a step is reinforced by, before a network adds to it. policy-gradient: the attempt's return less
    # that of the others in its maze, which is unbiased. cell-advantage: the return to go less its mean over all visits
    # to the cell, which tells the way from a detour. 'MODULE:FUNCTION': what a function of your own says.
    credit: Credit = "cell-advantage"
    # Further facts that the credit network of rule 'learned' knows of a step: functions of your own, a number a step.
    credit_features: Annotated[tuple[Feature, ...], BeforeValidator(_features)] = ()
    discount: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9  # gamma of the return to go in the credit
    cell_step_size: Annotated[float, Field(ge=0.0, le=1e6)] = 5.0  # alpha of the fast weights, or its beginning
    step_size: Annotated[float, Field(ge=0.0, le=1e6)] = 0.02  # alpha of the network's parameters, if all are adapted

    @model_validator(mode="after")
    def _features_of_a_network(self) -> InnerConfig:
        """Refuses features of a network that there is not."""
        if self.credit_features and self.rule != "learned":
            raise ValueError(
                f"inner.credit_features are for the credit network, which rule '{self.rule}' has not; "
                "set inner.rule to learned, or inner.credit to a function of your own"
            )
        return self


class OuterConfig(Section):
    """The meta-objective and its optimiser (Adam)."""

    objective: Literal["policy-gradient", "clipped"] = "clipped"
    attempts: Annotated[int, Field(ge=1, le=1000)] = 1  # attempts after the last inner step
    first_weight: Share = 1.0  # weight of the attempts before each inner step; those after the last weigh 1
    gae_lambda: Share = 0.9  # lambda: how far credit reaches back, 1 to the start of the attempt
    exploration: Annotated[float, Field(ge=0.0, le=1e6)] = 0.0  # weight of the E-MAML term; 1 is exact with maml
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01  # Adam's at the start; it falls linearly to 0
    max_gradient_norm: Annotated[float, Field(gt=0.0)] = 0.2  # a longer meta-gradient is scaled down to it


class RunConfig(Section):
    """The amount of work, and the portions in which it is done."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    updates: Positive = 1000
    mazes: Annotated[int, Field(ge=1, le=10_000)] = 60  # M mazes in a meta-batch
    mazes_per_lease: Positive = 30  # mazes an actor takes at a time
    # Steps after which an attempt has failed, per cell of the maze, walls included; no maze's shortest way is as long.
    horizon_per_cell: Annotated[float, Field(ge=1.0, le=100.0)] = 3.0
    discount: Annotated[float, Field(gt=0.0, le=1.0)] = 0.99  # gamma per step
    lag: Annotated[int, Field(ge=0, le=16)] = 1  # updates that rollouts are behind
    lease_timeout_s: Annotated[float, Field(gt=0.0)] = 10.0  # after which a lease is given to someone else
    checkpoint_every: Positive = 200  # updates
    # The share of rollouts that the learner computes again, to see that nobody lies; at 1 every update waits for all.
    audit: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01

    @model_validator(mode="after")
    def _whole_leases(self) -> RunConfig:
        """Refuses a batch that leases do not divide."""
        if self.mazes % self.mazes_per_lease:
            raise ValueError(
                f"a batch of {self.mazes} mazes cannot be cut into leases of {self.mazes_per_lease}; "
                "set run.mazes_per_lease to a divisor of run.mazes"
            )
        return self

    @property
    def leases(self) -> int:
        """Counts the leases that make up one meta-batch."""
        return self.mazes // self.mazes_per_lease


def is_of_first_design(tree: Mapping[str, Any]) -> bool:
    """Says whether a tree of settings is one of clew's first design, whose theta and config are of no use now.

    Its horizon was one number for all mazes, which stands in each of its checkpoints.
    """
    run = tree.get("run")
    return isinstance(run, Mapping) and "horizon" in run


class Config(Section):
    """All settings of a run."""

    maze: MazeConfig = MazeConfig()
    policy: PolicyConfig = PolicyConfig()
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()
    run: RunConfig = RunConfig()

    @property
    def own(self) -> tuple[str, ...]:
        """Lists the functions of the user's own that the config names, MODULE:FUNCTION, each once."""
        named = (*self.maze.families, self.inner.credit, *self.inner.credit_features)
        return tuple(dict.fromkeys(name for name in named if ":" in name))

    @model_validator(mode="after")
    def _one_attempt_at_a_time(self) -> Config:
        """Refuses what a recurrent policy, whose state goes through the attempts one by one, cannot do."""
        if self.policy.kind == "recurrent":
            for name, attempts in (("inner", self.inner.attempts), ("outer", self.outer.attempts)):
                if attempts > 1:
                    raise ValueError(
                        f"a recurrent policy makes one attempt after another, not {attempts} at a time; "
                        f"set {name}.attempts to 1"
                    )
            if self.inner.adapts == "all":
                raise ValueError("a recurrent policy adapts its state alone; set inner.adapts to cells")
        return self

    @model_validator(mode="after")
    def _counts_once(self) -> Config:
        """Refuses to credit exploration twice; a recurrent policy has no estimator that could."""
        if self.outer.exploration and self.inner.estimator == "dice" and self.policy.kind != "recurrent":
            raise ValueError(
                "estimator 'dice' already credits the attempts before adaptation with what they made possible; "
                "set outer.exploration to 0, or inner.estimator to maml"
            )
        return self
