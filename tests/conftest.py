"""What all tests share."""

import signal

import pytest
import torch

from tests.parts.engine import composed, engine, images, torch_index

__all__ = ["composed", "engine", "images", "torch_index"]  # fixtures

# A background job of a script ignores it, and so would every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # as the processes do; two threads of a test fight over cores with the processes it starts

# What takes longest. It comes first: where several workers take a file each, none is left alone with it in the end.
LONG = [
    *("test_parallel.py", "test_cli.py", "test_audit.py", "test_compiled.py", "test_processes.py", "test_flood.py"),
    *("test_actors_machine.py", "test_security.py", "test_doctor.py", "test_network.py", "test_api.py"),
    *("test_compare_command.py", "test_faults.py", "test_namespaces.py", "test_estimators.py", "test_evaluation.py"),
    *(
        "test_unsensed.py",
        "test_memory_oracle.py",
        "test_output.py",
        "test_fuzz.py",
        "test_traces.py",
        "test_compare.py",
    ),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files come first, and all else as it was."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
