"""Starts processes and shows people what they do. Each process computes in one thread.

One actor takes one core, and the last bit of theta depends on how many threads share a sum. numpy's BLAS, whichever it
is, reads these variables when it is loaded, so nothing of clew may load numpy before this package.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
