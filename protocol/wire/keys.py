"""CURVE keys: a directory for each party, which holds all that this party needs and nothing else.

    DIR/learner/learner.key_secret   the learner's pair        DIR/NAME/learner.key        the learner's public key
    DIR/learner/allowed/NAME.key     who may connect           DIR/NAME/actor.key_secret   that actor's pair

The files are in the format of `zmq.auth`; keys are z85, 40 characters. `clew keys` makes them. Whoever can change what
is in these directories decides who may connect, so they must be this user's own, or root's.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.auth import load_certificate
from zmq.utils import z85

from protocol.config import ClewError
from protocol.wire import descriptors

NAME = re.compile(r"(?!learner\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # of an actor's key
MAX_FILE_BYTES = 65_536  # of a key file, which takes some hundred
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
MOST_FAILURES = 3  # to read who may connect, in a row

log = logging.getLogger("clew")


@dataclass(frozen=True)
class LearnerKeys:
    """The learner's pair, and whom it lets in."""

    public: bytes
    secret: bytes
    allowed: Allowlist

    @staticmethod
    def of(folder: Path) -> LearnerKeys:
        """The keys in DIR/learner; ClewError where they are not fit for use."""
        public, secret = key_pair(folder, "learner")
        allowed = folder / "allowed"
        try:
            _, faults = read_allowed(allowed)
        except OSError as error:
            raise ClewError(_unreadable(allowed, error)) from None
        if faults:
            raise ClewError(faults[0])
        return LearnerKeys(public, secret, Allowlist(allowed))


@dataclass(frozen=True)
class ActorKeys:
    """An actor's pair and the learner's public key."""

    public: bytes
    secret: bytes
    learner: bytes

    @staticmethod
    def of(folder: Path) -> ActorKeys:
        """The keys in DIR/NAME; ClewError where they are not fit for use."""
        public, secret = key_pair(folder, "actor")
        path = folder / "learner.key"
        try:
            learner, _ = _load(path)
        except (OSError, ValueError) as error:
            raise ClewError(
                f"cannot use {path}, the learner's public key: {_reason(error)}; "
                "copy the whole directory from where `clew keys` made it"
            ) from None
        return ActorKeys(public, secret, learner)


class Allowlist:
    """Who may connect: the public keys in a folder, as of the last `refresh`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failures = 0  # to read it, in a row
        self._names: dict[bytes, str] = {}  # by public key; replaced as a whole, since ZAP's thread reads it
        self._faults: set[str] = set()  # of which the log knows
        self.refresh()

    def name_of(self, public: bytes) -> str | None:
        """Whose key this is; None: it may not connect."""
        return self._names.get(public)

    def refresh(self) -> set[str]:
        """Reads the folder again; the names whose key is gone, or another, since the last time.

        A key that cannot be read is not allowed. Where the folder itself is gone or not to be trusted, nobody is; where
        this process lacks files or memory to read it, nobody is after a few calls, since nobody could be revoked.
        """
        try:
            names, faults = read_allowed(self._folder)
            self._failures = 0
        except ClewError as error:
            names, faults = {}, [f"nobody may connect now: {error}"]
        except OSError as error:
            self._failures += 1
            if self._failures < MOST_FAILURES:
                return set()
            names, faults = {}, [f"nobody may connect now: {_unreadable(self._folder, error)}"]
        self._warn(set(faults))
        former, self._names = self._names, names
        return {name for key, name in former.items() if names.get(key) != name}

    def _warn(self, faults: set[str]) -> None:
        """Of each once, for as long as it lasts."""
        for fault in sorted(faults - self._faults):
            log.warning("%s", fault)
        self._faults = faults


def read_allowed(folder: Path) -> tuple[dict[bytes, str], list[str]]:
    """Who may connect, by public key, and what is wrong with the other files; ClewError without a folder to trust, and
    OSError where this process lacks what it takes to read it."""
    names: dict[bytes, str] = {}
    faults = []
    try:
        require_own(folder)
        found = names_in(folder)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise ClewError(_unreadable(folder, error)) from None
    for name in found:
        path = folder / f"{name}.key"
        try:
            public, _ = _load(path)
        except FileNotFoundError:  # revoked this moment
            continue
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in EXHAUSTED:  # says nothing of this key
                raise
            faults.append(f"{path} lets nobody in: {_reason(error)}; delete it, or make the key again")
            continue
        if not NAME.fullmatch(name):
            faults.append(f"{str(path)!a} lets nobody in: no actor can have that name; delete or rename it")
        elif public in names:
            faults.append(f"{path} lets nobody in: it holds the key of {names[public]}; delete one of the two")
        else:
            names[public] = name
    return names, faults


def _unreadable(folder: Path, error: OSError) -> str:
    exhausted = error.errno in EXHAUSTED
    remedy = "raise `ulimit -n`" if exhausted else "copy the whole directory from where `clew keys` made it"
    return f"cannot read {folder}, which says who may connect: {error.strerror}; {remedy}"


def names_in(folder: Path) -> list[str]:
    """Of the keys in a folder, whatever they are worth; OSError without the folder."""
    files = [file for file in descriptors.opened(lambda: os.listdir(folder)) if not file.startswith(".")]
    return sorted(file.removesuffix(".key") for file in files if file.endswith(".key"))


def key_pair(folder: Path, role: str) -> tuple[bytes, bytes]:
    """The public and the secret key of a learner or an actor; ClewError where they are not fit for use."""
    path = folder / f"{role}.key_secret"
    try:
        mode = path.stat().st_mode & 0o777
        require_own(folder)
        require_own(folder.resolve().parent, is_above=True)
        if mode & 0o077:
            raise ClewError(
                f"{path} can be read by others (mode {mode:04o}); run chmod 600 {path}, "
                "and make a new key if others may have read it"
            )
        public, secret = _load(path)
    except FileNotFoundError:
        nearby = sorted(folder.glob(f"*/{role}.key_secret"))  # in DIR, where DIR/learner was wanted
        wanted = f"make keys with `clew keys new DIR`, then give --keys DIR/{role}"
        remedy = f"give --keys {nearby[0].parent}" if nearby else wanted
        raise ClewError(f"no {role} key in {folder}; {remedy}") from None
    except (OSError, ValueError) as error:
        raise ClewError(
            f"cannot use {path}: {_reason(error)}; give --keys another directory, or make keys with `clew keys`"
        ) from None
    if secret is None or zmq.curve_public(secret) != public:
        raise ClewError(
            f"{path} holds no secret key of its public one; make keys with `clew keys new DIR` or `clew keys add`"
        )
    return public, secret


def require_own(folder: Path, is_above: bool = False) -> None:
    """ClewError where another user could put keys into `folder`; OSError without it.

    `is_above`: it holds key directories, and no keys; another user must not be able to exchange them.
    """
    status = folder.stat()
    if not is_above and status.st_uid not in (0, os.geteuid()):
        raise ClewError(
            f"{folder} belongs to another user (id {status.st_uid}), who could put keys into it; "
            f"run chown -R {os.geteuid()} {folder}, or give --keys another directory"
        )
    if _is_open(folder) and not (is_above and status.st_mode & stat.S_ISVTX):
        raise ClewError(
            f"anyone can write to {folder} (mode {status.st_mode & 0o7777:04o}), and so let anyone in; "
            f"run chmod o-w {folder}, and look at what is in it"
        )


def _is_open(path: Path) -> bool:
    """Whether every user of this machine can write to it. Kubernetes' volumes look so, and are mounted to be read."""
    return bool(path.stat().st_mode & stat.S_IWOTH) and not os.statvfs(path).f_flag & os.ST_RDONLY


def _load(path: Path) -> tuple[bytes, bytes | None]:
    """The public key in a file and the secret one, where there is one; OSError or ValueError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:  # a pipe would block for ever
        raise ValueError("it is no key file")
    if status.st_uid not in (0, os.geteuid()):
        raise ValueError(f"it belongs to another user (id {status.st_uid})")
    if _is_open(path):
        raise ValueError(f"anyone can write to it (mode {status.st_mode & 0o777:04o})")
    try:
        public, secret = descriptors.opened(lambda: load_certificate(path))
    except (ValueError, IndexError):
        raise ValueError("there is no public key in it") from None
    except OSError as error:
        if error.errno is None:  # what pyzmq raises for a file that has just gone
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        raise
    if not (_is_key(public) and (secret is None or _is_key(secret))):
        raise ValueError("a key has 40 characters of z85")
    return public, secret


def _is_key(text: bytes) -> bool:
    try:
        return len(text) == 40 and len(z85.decode(text)) == 32
    except (KeyError, struct.error):  # another character; five that stand for more than 32 bits
        return False


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
