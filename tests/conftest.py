"""What all tests share."""

import torch

torch.set_num_threads(
    1
)  # as the processes do; two threads of a test fight over cores with the processes it starts
