"""Runs an actor: `python -m actors` is the same as `clew actor`."""

import sys

from deploy.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "actor")
    main()
