"""`python -m learner`: the same as `clew learner`."""

import sys

from deploy.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "learner")
    main()
