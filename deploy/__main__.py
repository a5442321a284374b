"""Starts `clew`, which is also `python -m deploy`. Ctrl-C ends it as it ends other programs, without a traceback.

As an exception, Ctrl-C would be raised anywhere, also while modules are imported, and in destructors, which print it. A
command that has something to undo asks for it, with `deploy.process.signals`.
"""

import signal


def main() -> None:
    """Imports `deploy.cli`, which takes a second, and runs the command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have asked to ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from deploy import cli

    cli.main()


if __name__ == "__main__":
    main()
