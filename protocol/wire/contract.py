"""What learner and actors must have alike, in one word: whatever decides what a lease asks for, and how it is said.

Comments and docstrings are not part of it, nor how connections are made. Of numpy the first two numbers of the version
are, since the third changes no random numbers. The processor, numba and Python are not: `protocol.learning.exact`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
ALIKE = ("config.py", "world", "learning", "compiled", "wire/frames.py", "wire/messages.py")  # of `protocol`


def contract(root: Path = ROOT, numpy: str = np.__version__) -> str:
    """Of the sources of `protocol` in `root` and a version of numpy."""
    digest = hashlib.sha256(".".join(numpy.split(".")[:2]).encode())
    for part in ALIKE:
        path = root / part
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(source.relative_to(root).as_posix().encode() + b"\0")
            digest.update("\0".join(_told(ast.parse(source.read_bytes()))).encode() + b"\0")
    return digest.hexdigest()


def _told(node: object) -> Iterator[str]:
    """What a piece of source says, but for strings that stand alone; the same in every version of Python.

    `ast.dump` is not: each version has fields, and a form, of its own.
    """
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if value is not None and value != []:
                yield name
                yield from _told(value)
        yield ")"
    elif isinstance(node, list):
        for one in node:
            yield from _told(one)
        yield "]"
    else:
        yield repr(node)
