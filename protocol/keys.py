"""CURVE keys: a directory for each party, which holds all that this party needs and nothing else.

    DIR/learner/learner.key_secret   the learner's pair        DIR/NAME/learner.key        the learner's public key
    DIR/learner/allowed/NAME.key     who may connect           DIR/NAME/actor.key_secret   that actor's pair

The files are `zmq.auth`'s. `deploy.keys` makes them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from zmq.auth import load_certificate
from zmq.utils import z85

from protocol.config import ClewError

log = logging.getLogger("clew")


@dataclass(frozen=True)
class LearnerKeys:
    """The learner's pair, z85, and whom it lets in."""

    public: bytes
    secret: bytes
    allowed: Allowlist

    @staticmethod
    def of(folder: Path) -> LearnerKeys:
        """The keys in DIR/learner; ClewError where they are not fit for use."""
        if (folder / "learner" / "learner.key_secret").exists():
            raise ClewError(f"{folder} is the directory of all keys; give --keys {folder / 'learner'}")
        public, secret = _pair(folder / "learner.key_secret", "give --keys DIR/learner")
        return LearnerKeys(public, secret, Allowlist(folder / "allowed"))


@dataclass(frozen=True)
class ActorKeys:
    """An actor's pair and the learner's public key, z85."""

    public: bytes
    secret: bytes
    learner: bytes

    @staticmethod
    def of(folder: Path) -> ActorKeys:
        """The keys in DIR/NAME; ClewError where they are not fit for use."""
        public, secret = _pair(folder / "actor.key_secret", "give --keys DIR/actor")
        learner = folder / "learner.key"
        try:
            return ActorKeys(public, secret, _load(learner)[0])
        except (OSError, ValueError) as error:
            raise ClewError(
                f"{learner} is no public key of a learner ({error}); copy it from where the keys were made"
            ) from None


class Allowlist:
    """Who may connect: the public keys in a folder, as of the last `refresh`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[bytes, str] = {}  # by public key; replaced as a whole, since ZAP's thread reads it
        self._warned: set[str] = set()
        self.refresh()

    def name_of(self, public: bytes) -> str | None:
        """Whose key this is; None: it may not connect."""
        return self._names.get(public)

    def refresh(self) -> set[str]:
        """Reads the folder again; the names whose key is gone, or another, since the last time.

        Who cannot be read is not allowed; where the folder itself cannot be read, all stays as it was.
        """
        try:
            files = sorted(path for path in self._folder.iterdir() if path.suffix == ".key")
        except OSError as error:
            self._warn_once(f"cannot read {self._folder} ({error.strerror}); who may connect stays as it was")
            return set()
        former, self._names = self._names, dict(filter(None, map(self._read, files)))
        return {name for key, name in former.items() if self._names.get(key) != name}

    def _read(self, path: Path) -> tuple[bytes, str] | None:
        try:
            return _load(path)[0], path.stem
        except FileNotFoundError:  # revoked this moment
            return None
        except (OSError, ValueError) as error:
            self._warn_once(f"{path} is no public key ({error}); nobody may connect with it")
            return None

    def _warn_once(self, sentence: str) -> None:
        if sentence not in self._warned:
            self._warned.add(sentence)
            log.warning(sentence)


def _pair(path: Path, hint: str) -> tuple[bytes, bytes]:
    """The pair in a secret file that nobody else can read."""
    try:
        mode = path.stat().st_mode & 0o777
        public, secret = _load(path)
    except FileNotFoundError:
        raise ClewError(f"there is no {path}; make keys with `clew keys new DIR` and {hint}") from None
    except (OSError, ValueError) as error:
        raise ClewError(f"{path} is no secret key ({error}); make another with `clew keys`") from None
    if mode & 0o077:
        raise ClewError(f"{path} can be read by others (mode {mode:04o}); run chmod 600 {path}")
    if secret is None:
        raise ClewError(f"{path} holds no secret key; make another with `clew keys`")
    return public, secret


def _load(path: Path) -> tuple[bytes, bytes | None]:
    """The keys in a file; OSError or ValueError where there are none."""
    public, secret = load_certificate(path)
    for key in (public, secret):
        if key is not None and len(z85.decode(key)) != 32:
            raise ValueError("a key has 40 characters")
    return public, secret
