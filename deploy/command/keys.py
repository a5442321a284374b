"""`clew keys`: makes the keys of the links, and decides who may connect."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
import zmq

from protocol.config import ClewError
from protocol.wire.keys import NAME, key_pair, names_in, read_allowed, require_own

app = typer.Typer(help="Make and revoke the keys of the learner and its actors.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of an actor, or of a machine's actors.")]
Keys = Annotated[Path, typer.Option("--keys", metavar="DIR", help="The directory that `clew keys new` made.")]
HERE = Path("keys")


@app.command()
def new(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")] = HERE) -> None:
    """Make a key for the learner, and one for its first actors, named `actor`."""
    learner, actor = folder / "learner", folder / "actor"
    with mendable(folder):
        for party in filter(Path.exists, (learner, actor)):
            raise ClewError(
                f"{party} is there already; add a key with `clew keys add NAME --keys {quote(str(folder))}`, "
                "or give another DIR"
            )
        folder.mkdir(0o700, parents=True, exist_ok=True)
        require_own(folder, is_above=True)
        with unfinished(folder) as made:
            write(made / "learner.key_secret", *zmq.curve_keypair())
            (made / "allowed").mkdir(0o755)
            made.rename(learner)
        allow(folder, "actor")
    print(f"the learner's: clew learner --keys {quote(str(learner))}")
    tell(actor)


@app.command()
def add(name: Name, folder: Keys = HERE) -> None:
    """Make a key for another actor, and allow it. A running learner knows within seconds."""
    if not NAME.fullmatch(name):
        raise ClewError(
            f"{name!r} is no name for an actor's key; give 63 characters at most, of A-Z, a-z, 0-9 and, "
            "after the first, '.', '_' and '-', and not 'learner'"
        )
    with mendable(folder):
        if name in names_in(allowed(folder)):
            raise ClewError(f"{name} has a key already; choose another name, or revoke it first")
        if (folder / name).exists():  # whatever it is: it is not ours to replace
            raise ClewError(f"{folder / name} is there already; choose another name, or remove it first")
        allow(folder, name)
    tell(folder / name)


@app.command()
def revoke(name: Name, folder: Keys = HERE) -> None:
    """Forbid a key. A running learner ends its connections within seconds."""
    with mendable(folder):
        known = names_in(allowed(folder))
        if name not in known:
            raise ClewError(f"no key is named {name!r}; choose from {', '.join(known) or 'none'}")
        (allowed(folder) / f"{name}.key").unlink()
        for file in ("actor.key_secret", "learner.key"):
            (folder / name / file).unlink(missing_ok=True)
        with suppress(OSError):  # it was moved to the actor's machine, or holds what is not ours to delete
            (folder / name).rmdir()
    print(f"revoked {name}; a running learner drops it within seconds")


@app.command("list")
def list_them(folder: Keys = HERE) -> None:
    """List the names whose keys may connect, and the public key of each."""
    with mendable(folder):
        names, faults = read_allowed(allowed(folder))
    for public, name in names.items():
        print(name, public.decode())
    for fault in faults:
        print(f"clew: {fault}", file=sys.stderr)


def allowed(folder: Path) -> Path:
    """Returns the directory that lists who may connect; ClewError where `folder` holds no keys."""
    if (folder / "learner" / "allowed").is_dir():
        return folder / "learner" / "allowed"
    if (folder / "allowed").is_dir():
        raise ClewError(f"{folder} holds the learner's keys alone; give --keys {folder.absolute().parent}")
    raise ClewError(f"no keys in {folder}; make them with `clew keys new {quote(str(folder))}`, or give --keys DIR")


def allow(folder: Path, name: str) -> None:
    """Makes DIR/NAME, and allows it only then: a key that is half made is never allowed."""
    learner, _ = key_pair(folder / "learner", "learner")
    public, secret = zmq.curve_keypair()
    with unfinished(folder) as made:
        write(made / "actor.key_secret", public, secret)
        write(made / "learner.key", learner)
        made.rename(folder / name)
    with unfinished(allowed(folder)) as made:
        write(made / "public", public)
        (made / "public").rename(allowed(folder) / f"{name}.key")


def write(path: Path, public: bytes, secret: bytes | None = None) -> None:
    """Writes a key file as `zmq.auth` would, but only its owner can ever read a secret, whatever the umask."""
    mode = 0o600 if secret else 0o644
    lines = ["metadata", "curve", f'    public-key = "{public.decode()}"']
    if secret:
        lines.append(f'    secret-key = "{secret.decode()}"')
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w") as file:
        os.fchmod(descriptor, mode)
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(descriptor)


def tell(actor: Path) -> None:
    """Prints how an actor's key is used."""
    print(f"an actor's: copy {quote(str(actor))} to its machine, clew actor --keys {quote(str(actor))}")


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Makes a directory that only its owner can read, to be renamed once it is whole; else it is removed."""
    made = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def mendable(folder: Path) -> Iterator[None]:
    """Makes a ClewError of one line of what the file system refuses."""
    try:
        yield
    except OSError as error:
        raise ClewError(
            f"cannot keep keys in {folder}: {error.strerror} ({error.filename}); mend that, or give another DIR"
        ) from None
