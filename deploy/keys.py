"""`clew keys`: makes the keys of the links, and says who may connect."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from zmq.auth import create_certificates

from protocol.config import ClewError

app = typer.Typer(help="Keys of the learner and its actors.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Of an actor, or of a machine's actors.")]
Keys = Annotated[Path, typer.Option("--keys", metavar="DIR", help="Where `clew keys new` put them.")]
HERE = Path("keys")


@app.command()
def new(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")] = HERE) -> None:
    """Make a learner's key, and one for its first actors, named `actor`."""
    learner = folder / "learner"
    if learner.exists():
        raise ClewError(f"{learner} is there already; add a key with `clew keys add NAME --keys {folder}`")
    with private(), unfinished(folder) as made:
        create_certificates(made, "learner")
        (made / "allowed").mkdir()
        made.rename(learner)
    allow(folder, "actor")
    print(f"the learner's: clew learner --keys {learner}")
    print(f"an actor's:    clew actor --keys {folder / 'actor'}   (copy this directory to its machine)")


@app.command()
def add(name: Name, folder: Keys = HERE) -> None:
    """Make a key for another actor, and allow it. A running learner knows within a second."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name) or name == "learner":
        raise ClewError(f"{name!r} is no name for a key; use letters, digits, dots and dashes, not `learner`")
    if name in allowed(folder):
        raise ClewError(f"{name} has a key already; choose another name, or revoke it first")
    allow(folder, name)
    print(f"an actor's:    clew actor --keys {folder / name}   (copy this directory to its machine)")


@app.command()
def revoke(name: Name, folder: Keys = HERE) -> None:
    """Forbid a key. A running learner ends its connections within seconds."""
    if name not in allowed(folder):
        raise ClewError(f"{name!r} has no key; these have: {', '.join(allowed(folder)) or 'none'}")
    (folder / "learner" / "allowed" / f"{name}.key").unlink()
    shutil.rmtree(folder / name, ignore_errors=True)
    print(f"revoked: {name}")


@app.command("list")
def list_them(folder: Keys = HERE) -> None:
    """Whose keys may connect."""
    for name in allowed(folder):
        print(name)


def allowed(folder: Path) -> list[str]:
    if not (folder / "learner" / "allowed").is_dir():
        raise ClewError(f"there are no keys in {folder}; make them with `clew keys new {folder}`")
    return sorted(path.stem for path in (folder / "learner" / "allowed").glob("*.key"))


def allow(folder: Path, name: str) -> None:
    """Makes DIR/NAME, and lets it in: in this order, so that nothing half-made is ever allowed."""
    with private(), unfinished(folder) as made:
        create_certificates(made, "actor")
        public, allowing = made / "actor.key", folder / "learner" / "allowed" / f".{name}.new"
        public.chmod(0o644)
        shutil.copyfile(folder / "learner" / "learner.key", made / "learner.key")
        shutil.rmtree(folder / name, ignore_errors=True)  # of a key that was revoked where this was a copy
        public.rename(allowing)
        made.rename(folder / name)
        allowing.rename(allowing.with_name(f"{name}.key"))


@contextmanager
def private() -> Iterator[None]:
    """What is made inside is its owner's alone, from its first moment."""
    former = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(former)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A directory to be renamed when all is in it; gone if that does not happen."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
