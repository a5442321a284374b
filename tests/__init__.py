"""Claims about clew, in the rooms of its packages, and `whole/` for what needs all of them; helpers are in `parts/`.

Tests run in one thread, as clew's processes do: `deploy` says so before numpy is loaded.
"""

from pathlib import Path

import deploy

__all__ = ["ROOT", "deploy"]

ROOT = Path(__file__).parent.parent
