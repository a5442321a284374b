"""The contract: one hash of everything that learner and actors must have alike to compute and to say the same.

It covers the source of whatever decides what a lease asks for and how messages are written, and the first two numbers
of numpy's version, since the third changes no random numbers. It leaves out comments, docstrings, how connections are
made, and the processor, numba and Python, which change no bit (`protocol.learning.exact`). Modules of the user's own,
which the config names, have a contract of their own.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from protocol import own

ROOT = Path(__file__).parents[1]
ALIKE = ("config.py", "own.py", "world", "learning", "compiled", "wire/frames.py", "wire/messages.py")


def contract(root: Path = ROOT, numpy: str = np.__version__) -> str:
    """Computes the contract of the sources of `protocol` in `root` and of a version of numpy."""
    digest = hashlib.sha256(".".join(numpy.split(".")[:2]).encode())
    for part in ALIKE:
        path = root / part
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(_said(source.relative_to(root).as_posix(), source.read_bytes()))
    return digest.hexdigest()


def own_contract(names: Sequence[str]) -> str:
    """Computes the contract of functions of the user's own, MODULE:FUNCTION, from their sources; "" without any."""
    digest = hashlib.sha256()
    for module in sorted(set(map(own.module_of, names))):
        digest.update(module.encode() + b"\0")
        for name, text in own.sources(module):
            digest.update(_said(name, text))
    return digest.hexdigest() if names else ""


def _said(name: str, text: bytes) -> bytes:
    """Returns the bytes of a source of that name that count."""
    words: list[str] = []
    _tell(ast.parse(text), words)
    return name.encode() + b"\0" + "\0".join(words).encode() + b"\0"


def _tell(node: object, words: list[str]) -> None:
    """Appends the parts of a piece of source, without strings that stand alone, alike in every version of Python.

    `ast.dump` would not do: each version of Python has fields, and a form, of its own. Every process does this when it
    starts: hence no generators, which would take twice as long.
    """
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.AST):
        words.append(type(node).__name__)
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != []:
                words.append(name)
                _tell(value, words)
        words.append(")")
    elif isinstance(node, list):
        for one in node:
            _tell(one, words)
        words.append("]")
    else:
        words.append(repr(node))
