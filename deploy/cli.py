"""The `clew` command. Each of its commands is a file in deploy/command."""

from __future__ import annotations

import logging
import sys

import typer

from deploy.command import faults, keys
from deploy.command.actor import actor
from deploy.command.bench import bench
from deploy.command.compare import compare
from deploy.command.config import show_config
from deploy.command.doctor import doctor
from deploy.command.evaluate import evaluate
from deploy.command.export import export
from deploy.command.learner import learner
from deploy.command.options import Version
from deploy.command.page import page
from deploy.command.ray import on_ray
from deploy.command.train import train
from deploy.process import logs, output

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def options(version: Version = False) -> None:
    """Learn how to learn mazes."""


app.command()(train)
app.command()(learner)
app.command()(actor)
app.command("ray")(on_ray)
app.add_typer(keys.app, name="keys")
app.command("config")(show_config)
app.command()(doctor)
app.command()(evaluate)
app.command()(compare)
app.command()(export)
app.command()(page)
app.command()(bench)


def main() -> None:
    """Runs `clew` and ends the process with its exit code."""
    output.take_over()
    logs.configure("text", "clew", logging.WARNING)
    sys.exit(faults.run(app))


if __name__ == "__main__":
    main()
