"""`clew page`: serves a page that shows a run, and lets it try mazes that are drawn there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from deploy.process.logs import printable
from deploy.process.versions import require
from protocol.wire.address import host_port

log = logging.getLogger("clew")


def page(
    run_dir: Annotated[
        Path | None,
        typer.Argument(metavar="RUN_DIR", help="The run's directory; if not given, what ships with clew."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Serve the page on this port; 0 is any free port.")
    ] = 8080,
    host: Annotated[
        str, typer.Option(help="Serve the page on this host. Beyond 127.0.0.1, whoever reaches it can use it.")
    ] = "127.0.0.1",
) -> None:
    """Show a run in the browser as it trains, and let it try mazes that you draw."""
    require("starlette", "uvicorn", "safetensors", extra="page")
    from deploy.page import server
    from learner import checkpoint

    if run_dir and not checkpoint.holds_run(run_dir):
        log.warning("%s holds no run so far; until it does, the page shows what ships with clew", run_dir)
    shown = server.Page(run_dir)
    shown.newest()  # an unusable run ends the command here
    with server.listening(host, port) as listener:
        where = listener.getsockname()[:2]
        print(f"the page is on http://{printable(host_port(*where))}", flush=True)
        server.Server(shown, host).run([listener])
