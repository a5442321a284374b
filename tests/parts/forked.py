"""`clew` processes that begin with their modules imported: forks of one process that has imported them.

To import them takes three seconds, with torch, in each of hundreds of processes; all else is as `python -m deploy`
has it, but that a fork ends without taking all its modules apart. What such a process starts with `python -m`, as
`clew train` does, is a fork of it, too. What is about the start itself, about the very end, or about what a process
takes of memory, starts `CLEW` with subprocess instead; so do torchrun and Slurm with all that they start.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Any, NoReturn, Self

from protocol.compiled import compiled
from tests import ROOT

MESSAGE_BYTES = 2**20


class Process:
    """One that was started, with as much of subprocess.Popen as tests need; its streams are text."""

    def __init__(
        self,
        arguments: list[str],
        cwd: Path,
        env: Mapping[str, str],
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        umask: int = -1,
    ) -> None:
        job = {"arguments": arguments, "cwd": str(cwd), "env": dict(env), "umask": umask}
        self.args, self.returncode = arguments, None
        self._monitor, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(os.devnull, "rb+", buffering=0) as nothing:
            given = [nothing.fileno(), stdout, stderr]
            self.stdout, given[1] = _stream(stdout, nothing.fileno())
            self.stderr, given[2] = _stream(stderr, nothing.fileno())
            try:
                socket.send_fds(_nursery(), [json.dumps(job).encode()], [*given, theirs.fileno()])
            finally:
                for mine, asked in ((given[1], stdout), (given[2], stderr)):
                    if asked == subprocess.PIPE:
                        os.close(mine)
        self.pid = self._told()

    args: list[str]
    returncode: int | None
    stdout: IO[str] | None
    stderr: IO[str] | None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()

    def poll(self) -> int | None:
        """Returns the exit code, or minus the signal that ended the process; None where it goes on."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._monitor.settimeout(timeout)
            try:
                self.returncode = self._told()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
            self._monitor.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Returns what is left to read on both streams, once the process has ended."""
        said = ["", ""]

        def read(number: int, stream: IO[str] | None) -> None:
            if stream:
                said[number] = stream.read()

        readers = [Thread(target=read, args=each, daemon=True) for each in enumerate((self.stdout, self.stderr))]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():  # somebody whom it started still has the stream
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        """The monitor reaps it no earlier than its exit code has been read: the process id is its own until then."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _told(self) -> int:
        said = self._monitor.recv(16)
        assert said, "the process that starts all others is gone"
        return int(said)


def run(
    arguments: list[str], cwd: Path, env: Mapping[str, str], timeout: float, umask: int = -1
) -> subprocess.CompletedProcess[str]:
    """A process that ends by itself."""
    with Process(arguments, cwd, env, umask=umask) as process:
        try:
            out, errors = process.communicate(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(arguments, process.wait(), out, errors)


def _stream(asked: int, nothing: int) -> tuple[IO[str] | None, int]:
    """Returns the end that the test reads, and the one that the process writes to."""
    if asked == subprocess.PIPE:
        reader, writer = os.pipe()
        return open(reader), writer
    return None, nothing if asked == subprocess.DEVNULL else asked


@cache
def _nursery() -> socket.socket:
    """Connects to the process that imports and forks; it ends when this end is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.parts.forked", str(theirs.fileno())],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    atexit.register(process.wait)  # run in the other order
    atexit.register(ours.close)
    return ours


# In the process that forks


def nurse(jobs: socket.socket) -> None:
    """Returns in every fork, where `sys.argv` and all else is as its job says; ends when nobody can ask any more."""
    for module in ("deploy.cli", "actors.actor", "learner.learner"):
        import_module(module)
    import_module("protocol.compiled.__main__").main()  # loads machine code
    sys.stdout.flush()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # monitors end unheard
    while True:
        said, given, *_ = socket.recv_fds(jobs, MESSAGE_BYTES, 4)
        if not said:
            os._exit(0)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            jobs.close()
            monitor(*given)
            become(**json.loads(said))
            return
        for descriptor in given:
            os.close(descriptor)


def monitor(stdin: int, stdout: int, stderr: int, to_test: int) -> None:
    """Returns in the child; tells the test which process it is, and how it ended."""
    child = os.fork()
    if child == 0:
        for number, descriptor in enumerate((stdin, stdout, stderr)):
            os.dup2(descriptor, number)
        os.closerange(3, max(stdin, stdout, stderr, to_test) + 1)
        return
    with open(os.devnull) as nothing:
        for descriptor in (0, 1, 2, stdin, stdout, stderr):
            os.dup2(nothing.fileno(), descriptor)
    test = socket.socket(fileno=to_test)
    test.send(b"%d" % child)
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert ended
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    try:
        test.send(b"%d" % code)
        test.recv(1)  # until the code has been read, or the test is gone
    finally:
        os._exit(0)


def become(arguments: list[str], cwd: str, env: dict[str, str], umask: int) -> None:
    """Makes this process what a new one is where it begins."""
    os.environ.clear()
    os.environ.update(env)
    compiled.cache_clear()  # which depends on it
    os.chdir(cwd)
    if umask >= 0:
        os.umask(umask)
    sys.argv = ["clew", *arguments]
    subprocess.Popen = Fork  # type: ignore[misc]
    open_streams()


def open_streams() -> None:
    """Standard input, output and error, as Python opens them."""
    encoding = os.environ.get("PYTHONIOENCODING") or None
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    out, errors = open(1, "wb", 0 if unbuffered else -1, closefd=False), open(2, "wb", closefd=False)  # noqa: SIM115
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = TextIOWrapper(out, encoding, write_through=unbuffered)
    sys.stderr = TextIOWrapper(errors, encoding, errors="backslashreplace", line_buffering=True)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]


class Fork(subprocess.Popen[Any]):
    """What `subprocess.Popen` makes of `python -m MODULE …`, without another Python; its name is the last argument."""

    def _execute_child(self, args: Any, *others: Any) -> None:
        if list(args[:2]) != [sys.executable, "-m"]:
            super()._execute_child(args, *others)  # type: ignore[misc]
            return
        ends = others[9:15]
        with warnings.catch_warnings(action="ignore"):  # the threads of this process are of no matter to the other
            self.pid = os.fork()
        if self.pid:
            self._child_created = True
            self._close_pipe_fds(*ends)  # type: ignore[attr-defined]
            return
        os.setsid()
        for number, descriptor in enumerate((ends[0], ends[3], ends[5])):
            if descriptor >= 0:
                os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        Path("/proc/self/comm").write_text(args[-1])
        sys.argv = args[2:]
        open_streams()
        end_with(import_module(args[2]).main)


def end_with(main: Callable[[], None]) -> NoReturn:
    """Python's own end takes half a second where torch is, and more where other processes want the cores."""
    try:
        main()
        code: object = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    nurse(socket.socket(fileno=int(sys.argv[1])))
    from deploy.__main__ import main

    end_with(main)
