"""What all tests share."""

import pytest
import torch

from tests.parts.engine import composed, engine, images, torch_index

__all__ = ["composed", "engine", "images", "torch_index"]  # fixtures

torch.set_num_threads(1)  # as the processes do; two threads of a test fight over cores with the processes it starts

# What takes longest. It comes first: where several workers take a file each, none is left alone with it in the end.
LONG = [
    f"test_{about}.py" for about in ("cli", "parallel", "faults", "processes", "network", "output", "flood", "doctor")
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files come first, and all else as it was."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
