"""Claims about all of clew, in one thread as its processes are: `deploy` says so before numpy is loaded."""

import deploy

__all__ = ["deploy"]
