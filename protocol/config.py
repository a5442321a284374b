"""Every setting of clew in one validated tree. The learner owns it; actors receive it in Welcome."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ClewError(Exception):
    """What a user can mend: one sentence that says what came, what was wanted, and the remedy."""


class Section(BaseModel):
    """A part of the tree: unknown keys and values out of range are errors, and nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MazeConfig(Section):
    """Which mazes are drawn."""

    family: Literal["perfect", "braided", "blocks", "rooms", "file"] = "perfect"
    side: Annotated[int, Field(ge=5, le=51)] = 9  # n: cells along one edge, walls included
    exit: Literal["corner", "random"] = "random"  # start is (0,0); corner: exit (n-1,n-1)
    min_distance: Positive = 4  # steps from the start to a random exit, at least
    braid: Share = 0.5  # share of dead ends opened, family 'braided'
    density: Annotated[float, Field(ge=0.0, le=0.6)] = 0.3  # share of cells blocked, family 'blocks'
    path: str = ""  # the maze file, family 'file'

    @model_validator(mode="after")
    def _consistent(self) -> MazeConfig:
        if self.family in ("perfect", "braided", "rooms") and self.side % 2 == 0:
            raise ValueError(
                f"maze side must be odd and at least 5 for family '{self.family}', got {self.side}; set maze.side"
            )
        if self.family == "file" and not self.path:
            raise ValueError("family 'file' needs a maze file; set maze.path")
        if self.min_distance > 2 * (self.side - 1):
            raise ValueError(
                f"maze.min_distance {self.min_distance} is more than a {self.side}x{self.side} maze can offer; "
                f"set it to {2 * (self.side - 1)} or less"
            )
        return self


class PolicyConfig(Section):
    """The policy network: one hidden layer over what the robot senses in a state."""

    hidden: Annotated[int, Field(ge=1, le=1024)] = 16  # hidden units
    radius: Annotated[int, Field(ge=1, le=4)] = (
        1  # sees which of the (2r+1)^2 - 1 cells around it are blocked
    )


class InnerConfig(Section):
    """Adaptation to one maze: theta' = f(theta, attempts)."""

    rule: Literal["sgd", "meta-sgd", "learned"] = "learned"
    estimator: Literal["first-order", "maml", "lvc", "dice"] = "lvc"
    steps: Annotated[int, Field(ge=1, le=10)] = 1  # K inner steps
    attempts: Annotated[int, Field(ge=1, le=1000)] = 1  # E attempts (episodes) before each inner step
    # credit, what a step is reinforced by, before what is learned of it. policy-gradient: the attempt's return less
    # that of the others in its maze, which is unbiased. cell-advantage: the return to go less its mean over all visits
    # to the cell, which tells the way from a detour.
    credit: Literal["policy-gradient", "cell-advantage"] = "cell-advantage"
    discount: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9  # gamma of that return to go
    step_size: Annotated[float, Field(gt=0.0)] = 0.02  # alpha; where rules that learn it start
    cell_step_size: Annotated[float, Field(gt=0.0)] = 5.0  # alpha of what belongs to one cell
    credit_hidden: Annotated[int, Field(ge=1, le=256)] = 16  # hidden units of the credit network


class OuterConfig(Section):
    """The meta-objective and its optimiser (Adam)."""

    objective: Literal["policy-gradient", "clipped"] = "clipped"
    clip: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2  # epsilon: how far the ratio may leave 1
    attempts: Annotated[int, Field(ge=1, le=1000)] = 2  # attempts after the last inner step
    first_weight: Share = 1.0  # weight of the attempts before each inner step; those after the last weigh 1
    entropy: Annotated[float, Field(ge=0.0)] = 0.0  # weight of the policy's entropy, nats
    gae_lambda: Share = 0.9  # lambda: how far credit reaches back, 1 to the start of the attempt
    exploration: Annotated[float, Field(ge=0.0)] = (
        0.0  # weight of the E-MAML term; at 1 exact with estimator maml
    )
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01  # of Adam; falls linearly to 0
    max_gradient_norm: Annotated[float, Field(gt=0.0)] = 0.2  # a longer meta-gradient is scaled down to it


class RunConfig(Section):
    """How much is done, in what portions, by whom."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    updates: Positive = 3000
    mazes: Annotated[int, Field(ge=1, le=10_000)] = 120  # M mazes in a meta-batch
    mazes_per_lease: Positive = 30  # mazes an actor takes at a time
    horizon: Annotated[int, Field(ge=1, le=10_000)] = 100  # T steps after which an attempt has failed
    discount: Annotated[float, Field(gt=0.0, le=1.0)] = 0.99  # gamma per step
    lag: Annotated[int, Field(ge=0, le=16)] = 1  # updates that rollouts are behind
    lease_timeout_s: Annotated[float, Field(gt=0.0)] = 10.0  # after which a lease is given to someone else
    checkpoint_every: Positive = 200  # updates

    @model_validator(mode="after")
    def _whole_leases(self) -> RunConfig:
        if self.mazes % self.mazes_per_lease:
            raise ValueError(
                f"a batch of {self.mazes} mazes cannot be cut into leases of {self.mazes_per_lease}; "
                "set run.mazes_per_lease to a divisor of run.mazes"
            )
        return self

    @property
    def leases(self) -> int:
        """Leases that make up one meta-batch."""
        return self.mazes // self.mazes_per_lease


class Config(Section):
    """The whole tree."""

    maze: MazeConfig = MazeConfig()
    policy: PolicyConfig = PolicyConfig()
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _counts_once(self) -> Config:
        if self.outer.exploration and self.inner.estimator == "dice":
            raise ValueError(
                "estimator 'dice' already credits the attempts before adaptation with what they made possible; "
                "set outer.exploration to 0, or inner.estimator to maml"
            )
        return self
