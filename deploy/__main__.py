"""`clew`, or `python -m deploy`. Ctrl-C ends it as it ends other programs, without a traceback.

As an exception it would be raised anywhere, also while modules are imported, and in destructors, which print it. A
command that has something to undo asks for it: `deploy.cli.stop_signals`, `deploy.command.bench.interruptible`.
"""

import signal


def main() -> None:
    """Hands over to `deploy.cli`, which takes a second to import."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have asked to ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from deploy import cli

    cli.main()


if __name__ == "__main__":
    main()
