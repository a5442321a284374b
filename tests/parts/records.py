"""Records of updates that never happened."""

from __future__ import annotations

from learner.record import Record


def record_of(update: int, theta: str = "") -> Record:
    """Makes a record in which figures are as they might be."""
    figures = 0.5, 1.0, 0.5, 1.0, 0.5, 1.5, 1.5
    return Record(update, theta, *figures, 1_000, 40, 0.25, 1, 2, {"gradient": 0.5}, 0.1, {"rollouts": 1.0}, 8, 0, {})
