"""What learner and actors must have alike, in one word: whatever decides what a lease asks for, and how it is said.

Comments and docstrings are not part of it, nor how connections are made. Of numpy the first two numbers of the version
are, since the third changes no random numbers. The processor, numba and Python are not: `protocol.learning.exact`.
Modules of the user's own, which the config names, have a contract of their own.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from protocol import own

ROOT = Path(__file__).parents[1]
ALIKE = ("config.py", "own.py", "world", "learning", "compiled", "wire/frames.py", "wire/messages.py")  # of `protocol`


def contract(root: Path = ROOT, numpy: str = np.__version__) -> str:
    """Of the sources of `protocol` in `root` and a version of numpy."""
    digest = hashlib.sha256(".".join(numpy.split(".")[:2]).encode())
    for part in ALIKE:
        path = root / part
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(_said(source.relative_to(root).as_posix(), source.read_bytes()))
    return digest.hexdigest()


def own_contract(names: Sequence[str]) -> str:
    """Of the sources that functions of the user's own stand in; "" of none. `names`: MODULE:FUNCTION, in any order."""
    digest = hashlib.sha256()
    for module in sorted(set(map(own.module_of, names))):
        digest.update(module.encode() + b"\0")
        for name, text in own.sources(module):
            digest.update(_said(name, text))
    return digest.hexdigest() if names else ""


def _said(name: str, text: bytes) -> bytes:
    """What a source of that name says."""
    words: list[str] = []
    _tell(ast.parse(text), words)
    return name.encode() + b"\0" + "\0".join(words).encode() + b"\0"


def _tell(node: object, words: list[str]) -> None:
    """Appends what a piece of source says, but for strings that stand alone; the same in every version of Python.

    `ast.dump` is not: each version has fields, and a form, of its own. Every process does this when it starts: hence no
    generators, which would take twice as long.
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
