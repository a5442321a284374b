"""`clew`, or `python -m deploy`. Ctrl-C ends it without a traceback even while modules are still being imported."""

import signal


def main() -> None:
    """Hands over to `deploy.cli`, which takes a second to import."""
    interrupts = signal.getsignal(signal.SIGINT)  # a shell may have asked to ignore Ctrl-C
    if interrupts is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from deploy import cli

    signal.signal(signal.SIGINT, interrupts)
    cli.main()


if __name__ == "__main__":
    main()
