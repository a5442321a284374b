"""CURVE keys: each party has a directory, which holds all that this party needs and nothing else.

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

NAME = re.compile(r"(?!learner\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # the name of an actor's key
MAX_FILE_BYTES = 65_536  # the most of a key file, which takes some hundred
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
MOST_FAILURES = 3  # failures in a row to read who may connect, after which nobody may

log = logging.getLogger("clew")


@dataclass(frozen=True)
class LearnerKeys:
    """The learner's pair of keys, and the keys that it lets in."""

    public: bytes
    secret: bytes
    allowed: Allowlist

    @staticmethod
    def of(folder: Path) -> LearnerKeys:
        """Reads the keys in DIR/learner; raises ClewError where they are not fit for use."""
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
    """An actor's pair of keys, and the learner's public key."""

    public: bytes
    secret: bytes
    learner: bytes

    @staticmethod
    def of(folder: Path) -> ActorKeys:
        """Reads the keys in DIR/NAME; raises ClewError where they are not fit for use."""
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
    """The public keys that may connect: those in a folder at the last `refresh`."""

    def __init__(self, folder: Path) -> None:
        """Reads the folder."""
        self._folder = folder
        self._failures = 0  # failures in a row to read the folder
        self._names: dict[bytes, str] = {}  # names by public key; replaced as a whole, since ZAP's thread reads it
        self._faults: set[str] = set()  # the faults that have been logged
        self.refresh()

    def name_of(self, public: bytes) -> str | None:
        """Returns the name of a public key; None if it may not connect."""
        return self._names.get(public)

    def refresh(self) -> set[str]:
        """Reads the folder again, and returns the names whose key is gone, or another, since the last time.

        A key that cannot be read may not connect. Where the folder itself is gone or not to be trusted, nobody may;
        where this process lacks files or memory to read it, nobody may after a few calls: no key could be revoked.
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
        """Logs each fault once, for as long as it lasts."""
        for fault in sorted(faults - self._faults):
            log.warning("%s", fault)
        self._faults = faults


def read_allowed(folder: Path) -> tuple[dict[bytes, str], list[str]]:
    """Returns the names of the keys that may connect, by public key, and what is wrong with the other files.

    Raises ClewError where the folder is not to be trusted, and OSError where this process lacks files or memory.
    """
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
        except FileNotFoundError:  # it was revoked this moment
            continue
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in EXHAUSTED:  # this says nothing of the key
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
    """Says that a folder of keys cannot be read, and what to do."""
    exhausted = error.errno in EXHAUSTED
    remedy = "raise `ulimit -n`" if exhausted else "copy the whole directory from where `clew keys` made it"
    return f"cannot read {folder}, which says who may connect: {error.strerror}; {remedy}"


def names_in(folder: Path) -> list[str]:
    """Lists the names of the keys in a folder, whatever they are worth; raises OSError without the folder."""
    files = [file for file in descriptors.opened(lambda: os.listdir(folder)) if not file.startswith(".")]
    return sorted(file.removesuffix(".key") for file in files if file.endswith(".key"))


def key_pair(folder: Path, role: str) -> tuple[bytes, bytes]:
    """Reads the public and the secret key of a learner or an actor; raises ClewError if they are not fit for use."""
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
        nearby = sorted(folder.glob(f"*/{role}.key_secret"))  # DIR was given where DIR/learner was wanted
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
    """Raises ClewError where another user could put keys into `folder`, and OSError without the folder.

    With `is_above` the folder holds key directories, and no keys; another user must not be able to exchange them.
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
    """Says whether every user of this machine can write to a path; Kubernetes' volumes are mounted to be read."""
    return bool(path.stat().st_mode & stat.S_IWOTH) and not os.statvfs(path).f_flag & os.ST_RDONLY


def _load(path: Path) -> tuple[bytes, bytes | None]:
    """Reads the public key in a file, and the secret one if there is one; raises OSError or ValueError."""
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
        if error.errno is None:  # pyzmq raises this for a file that has just gone
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        raise
    if not (_is_key(public) and (secret is None or _is_key(secret))):
        raise ValueError("a key has 40 characters of z85")
    return public, secret


def _is_key(text: bytes) -> bool:
    """Says whether a text is a key in z85."""
    try:
        return len(text) == 40 and len(z85.decode(text)) == 32
    except (KeyError, struct.error):  # another character; five that stand for more than 32 bits
        return False


def _reason(error: OSError | ValueError) -> str:
    """Says what is wrong, in the words of the system or of the error."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
