"""Prints in one line why a command failed, without a traceback where a user can mend it."""

from __future__ import annotations

import sys
from typing import Any

import typer
from pydantic import ValidationError

from deploy.process.fleet import LearnerError
from deploy.process.logs import printable
from deploy.process.output import OutputError
from deploy.process.settings import explain
from protocol.config import ClewError

UsageError: Any = typer.BadParameter.__mro__[1]  # a command line that cannot be understood; Typer does not export it


def run(app: typer.Typer) -> int:
    """Runs a command and returns its exit code: 2 where the user can mend what failed, 1 where not."""
    try:
        done = app(prog_name="clew", standalone_mode=False)
        sys.stdout.flush()
        return int(done or 0)
    except OutputError as error:
        fault, code = ("", 1) if error.is_unread else (str(error), 2)
    except ClewError as error:
        fault, code = str(error), 2
    except UsageError as error:
        fault, code = misunderstood(error), 2
    except LearnerError as error:
        fault, code = str(error), 1
    except MemoryError:
        fault, code = "there is not enough memory; ask for less at a time", 1
    except Exception as error:
        from deploy.process.theirs import fault_of  # takes along what most commands do without

        fault, code = fault_of(error) or "", 2
        if not fault:
            raise
    if fault:
        print(f"clew: {printable(fault)}", file=sys.stderr)
    return code


def misunderstood(error: Any) -> str:
    """Says in one sentence what is wrong with a command line; nothing where Typer has shown the help instead."""
    detail = error.__cause__.errors()[0] if isinstance(error.__cause__, ValidationError) else None
    if detail and detail["type"] != "value_error":  # a value of the wrong type, or out of range
        return explain(detail | {"loc": (error.param.opts[0],)})
    said = error.format_message().strip().rstrip(".").replace(": Value error, ", ": ")
    command = error.ctx.command_path if error.ctx else "clew"
    return said and f"{said[0].lower()}{said[1:]}; see `{command} --help`"
