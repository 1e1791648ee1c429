"""Start Python programs of the tests, without the second in which each imports the library.

`Popen` and `run` are those of `subprocess`, for a console script of this environment, and for
`python script.py`, `python -c code` and `python -m module`. One process beside the tests has
imported the library. It forks for each program, and the child goes on as a new interpreter would
have gone on: it runs the code as `__main__`, and ends as any program ends.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import inspect
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import ledger

ROOT = Path(__file__).parents[1]
"""The project's folder."""
LEDGER = Path(sys.executable).with_name("ledger")
"""The library's command line."""

_MESSAGE_MAX_BYTES = 1 << 17
_INTEGER = struct.Struct("i")


class Popen(subprocess.Popen[Any]):
    """A program that runs in a fork; with a working directory, an environment and pipes."""

    def _execute_child(self, *given: object) -> None:
        asked = inspect.signature(super()._execute_child).bind(*given).arguments  # type: ignore[misc]
        words = [os.fsdecode(word) for word in asked["args"]]
        if words[0] == sys.executable:
            del words[0]
        assert words[0] in {"-c", "-m"} or Path(words[0]).is_absolute(), words
        assert asked["preexec_fn"] is None
        assert not asked["pass_fds"]
        wanted = {
            "argv": words,
            "cwd": os.fspath(asked["cwd"] or Path.cwd()),
            "environ": dict(asked["env"] or os.environ),
            "session": asked["start_new_session"],
        }
        ends = (asked[name] for name in ("p2cread", "c2pwrite", "errwrite"))
        streams = [number if end == -1 else end for number, end in enumerate(ends)]
        self._news, theirs = os.pipe()
        socket.send_fds(_process(), [json.dumps(wanted).encode()], [*streams, theirs])
        os.close(theirs)
        (self.pid,) = _INTEGER.unpack(os.read(self._news, _INTEGER.size))
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in pipes))  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._news], [], [], 0)[0]:
            return 0, 0
        (status,) = _INTEGER.unpack(os.read(self._news, _INTEGER.size))
        os.close(self._news)
        return self.pid, status

    def _internal_poll(self, *_given: object, **_named: object) -> int | None:
        if self.returncode is None:
            with self._waitpid_lock:  # type: ignore[attr-defined]
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


def run(
    words: list[Any],
    *,
    capture_output: bool = False,
    check: bool = False,
    timeout: float | None = None,
    **options: Any,  # noqa: ANN401 - those of `subprocess.run`
) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end, as `subprocess.run` does."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(words, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(words, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


@cache
def _process() -> socket.socket:
    """Return the way to the process that forks; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(ledger.__file__).parents[1])},
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each program that is asked for; return what was asked for in the child alone."""
    while True:
        message, streams, *_ = socket.recv_fds(control, _MESSAGE_MAX_BYTES, 4)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # those that wait for a program, and are done
                pass
        if not message:
            sys.exit()
        if os.fork() == 0:
            break
        for stream in streams:
            os.close(stream)
    control.close()
    *standard, news = streams
    child = os.fork()
    if child:  # this process waits, and tells how the program ended
        os.write(news, _INTEGER.pack(child))
        for stream in (*standard, 0, 1, 2):
            os.close(stream)
        _, status = os.waitpid(child, 0)
        os.write(news, _INTEGER.pack(status))
        os._exit(0)
    os.close(news)
    for number, stream in enumerate(standard):
        os.dup2(stream, number)
        os.close(stream)
    wanted: dict[str, Any] = json.loads(message)
    return wanted


def _become(wanted: dict[str, Any]) -> None:
    """Make this process what a new interpreter would be, and run the program."""
    if wanted["session"]:
        os.setsid()
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["environ"])
    time.tzset()
    # The tests may run in the background of a shell, where interrupts are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("PYTHONWARNINGS") == "error":
        warnings.simplefilter("error")
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        lines = number == 2 or os.isatty(number)
        errors = "backslashreplace" if number == 2 else "strict"
        stream = open(  # noqa: SIM115 - a number, which stays open
            number, mode, 1 if lines else -1, encoding="utf-8", errors=errors, closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    how, *words = wanted["argv"]
    if how == "-m":
        sys.argv, sys.path[0] = words, wanted["cwd"]
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv, sys.path[0] = ["-c", *words[1:]], ""
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(words[0], vars(main))  # noqa: S102 - the test's own code
    else:
        sys.argv, sys.path[0] = [how, *words], str(Path(how).parent)
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    # Imported before the first program asks for it. The library imports only what is asked for,
    # so that each command would take most of a second of the processor for its own part.
    for extra in ("alembic.command", "psycopg", "rich.markdown", "sqlalchemy.dialects.sqlite"):
        importlib.import_module(extra)
    others = ("__main__", "integrations", "migrations", "testing")  # which no program imports
    for module in pkgutil.walk_packages(ledger.__path__, "ledger."):
        if not module.name.startswith(tuple(f"ledger.{name}" for name in others)):
            importlib.import_module(module.name)

    gc.freeze()
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
