"""What all tests share."""

import torch

from tests.engine import composed, engine, images, torch_index

__all__ = ["composed", "engine", "images", "torch_index"]  # fixtures

torch.set_num_threads(1)  # as the processes do; two threads of a test fight over cores with the processes it starts
