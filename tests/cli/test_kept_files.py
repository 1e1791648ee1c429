"""No command destroys the store, a database, or a file that it did not write."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ledger.reports.output_file import output_file
from tests import programs
from tests.fixtures import Run
from tests.programs import LEDGER

Refused = Callable[..., str]

WRITERS = (
    ("export", "{}", "--format", "csv"),
    ("export", "{}", "--format", "xlsx"),
    ("report", "statement", "trace", "--html", "{}"),
)
"""A command for each kind of file; pictures, whose names must end in .svg or .png, are below."""

ids = pytest.mark.parametrize("words", WRITERS, ids=" ".join)


def filled(words: tuple[str, ...], path: object) -> list[str]:
    """Return a command with the name of its file in place."""
    return [word.format(path) for word in words]


@pytest.fixture(autouse=True)
def books(
    ledger: Run,
    traffic: Callable[..., Path],
    filled_once: Callable[[Callable[[], object]], Path],
) -> Path:
    """Run three calls through a pool, and return the folder."""
    words = ("--capacity-usd", "1", "--input-price", "3")
    return filled_once(lambda: ledger("simulate", traffic(3), *words))


@pytest.fixture
def unharmed(books: Path, ledger: Run) -> Callable[[], None]:
    """Return a function that fails unless the store still has all that it has now."""
    before = ledger("export", "-", "--format", "jsonl").out

    def check() -> None:
        assert before == ledger("export", "-", "--format", "jsonl").out
        assert "ok " in ledger("verify").out
        assert [] == list(books.rglob("*.part"))

    return check


def spellings(folder: Path, name: str) -> list[Path | str]:
    """Return ways to say where a file in a folder is, links among them."""
    (folder / "below").mkdir(exist_ok=True)
    link, door = folder / f"link-{name}.csv", folder / "door"
    link.symlink_to(folder / name)
    if not door.exists():
        door.symlink_to(folder, target_is_directory=True)
    return [
        name,
        f"./{name}",
        f"below/../{name}",
        folder / name,
        door / name,
        link,
        f"//{folder}/{name}",
    ]


@ids
def test_the_store_is_never_replaced(
    words: tuple[str, ...], refused: Refused, books: Path, unharmed: Callable[[], None]
) -> None:
    """The database and its lock files are refused under every spelling, whatever force says."""
    for name in ("ledger.db", "ledger.db-lock", "ledger.db-lock-next", "ledger.db-lock-queue"):
        for path in spellings(books, name):
            said = refused(*filled(words, path), "--force")
            assert "it is the store itself, or a part of it; name another file" in said
    assert "the store itself" in refused(*filled(words, "ledger.db"))
    unharmed()


def test_the_whole_page_is_held_to_the_same_rules(
    refused: Refused, ledger: Run, books: Path, unharmed: Callable[[], None]
) -> None:
    """`report page` refuses the store and a stranger, and makes its own page again."""
    words = ("report", "page", "--no-verify", "--pool", "trace", "--html")
    assert "store itself" in refused(*words, "ledger.db", "--force")
    ledger(*words, "out.html")
    ledger(*words, "out.html")
    (books / "out.html").write_text("mine", encoding="utf-8")
    assert "--force" in refused(*words, "out.html")
    unharmed()


def test_what_sqlite_puts_beside_the_store_is_refused_before_it_is_there(
    refused: Refused, books: Path, unharmed: Callable[[], None]
) -> None:
    """A file of that name would be read as the log of the store."""
    for end in ("-wal", "-shm", "-journal"):
        assert not (books / f"ledger.db{end}").exists()
        for name in spellings(books, f"ledger.db{end}"):
            said = refused("export", name, "--format", "csv", "--force")
            assert "store itself, or a part of it" in said
        assert not (books / f"ledger.db{end}").exists()
    unharmed()


def test_the_log_of_a_store_in_use_is_refused(
    refused: Refused, books: Path, unharmed: Callable[[], None]
) -> None:
    """While a writer has the store open its log is there, and holds what was committed last."""
    with closing(sqlite3.connect(books / "ledger.db")) as other:
        assert other.execute("SELECT count(*) FROM entries").fetchone()
        assert (books / "ledger.db-wal").exists()
        os.link(books / "ledger.db-wal", books / "hard.csv")
        for name in ("ledger.db-wal", "ledger.db-shm", "hard.csv"):
            assert "store itself" in refused("export", name, "--format", "csv", "--force")
    unharmed()


@ids
def test_hard_links_to_the_store_are_refused(
    words: tuple[str, ...], refused: Refused, books: Path, unharmed: Callable[[], None]
) -> None:
    """Another name of the same file is the same file."""
    os.link(books / "ledger.db", books / "hard.csv")
    assert "store itself" in refused(*filled(words, "hard.csv"), "--force")
    unharmed()


@ids
def test_another_database_is_refused(words: tuple[str, ...], refused: Refused, books: Path) -> None:
    """Any SQLite database, any ledger's, and what stands beside it."""
    with closing(sqlite3.connect(books / "mine.sqlite")) as mine:
        mine.execute("CREATE TABLE t (x)")
        mine.commit()
    shutil.copy(books / "ledger.db", books / "copy.csv")
    for name in ("mine.sqlite", "copy.csv", "mine.sqlite-wal", "mine.sqlite-journal"):
        before = (books / name).read_bytes() if (books / name).exists() else None
        assert "database" in refused(*filled(words, name), "--force")
        after = (books / name).read_bytes() if (books / name).exists() else None
        assert before == after


@pytest.mark.parametrize("name", ["x.svg", "x.png"])
def test_a_chart_replaces_no_database_and_no_stranger(
    name: str, ledger: Run, refused: Refused, books: Path, unharmed: Callable[[], None]
) -> None:
    """A picture is held to the same rules; one of ours is drawn again without asking."""
    words = ("report", "chart", "burn-down", "--pool", "trace", "--out", name)
    ledger(*words)
    ledger(*words)
    (books / name).write_bytes(b"mine")
    assert "--force" in refused(*words)
    assert b"mine" == (books / name).read_bytes()
    ledger(*words, "--force")
    (books / name).unlink()
    os.link(books / "ledger.db", books / name)
    assert "store itself" in refused(*words, "--force")
    unharmed()


@ids
def test_a_file_of_somebody_else_needs_force(
    words: tuple[str, ...], ledger: Run, refused: Refused, books: Path
) -> None:
    """What ledger made is made again without asking, so that a timer can; the rest is not."""
    path = books / "out.bin"
    for mine in (
        b"a,b\n1,2\n",
        b'{"seq": 1}\n',
        b"\n",
        b"<!doctype html><title>mine</title>",
        b"x",
    ):
        path.write_bytes(mine)
        said = refused(*filled(words, path))
        assert "it exists" in said
        assert "--force" in said
        assert mine == path.read_bytes()
    ledger(*filled(words, path), "--force")
    made = path.read_bytes()
    assert made != mine
    ledger(*filled(words, path))
    path.write_bytes(b"")
    ledger(*filled(words, path))
    assert len(made) == len(path.read_bytes()) or b"<time" in made


def test_an_export_is_known_in_every_format(ledger: Run, books: Path) -> None:
    """An export takes the place of one in another format: both are ours."""
    for kind in ("csv", "jsonl", "parquet", "xlsx", "focus", "csv"):
        ledger("export", "out", "--format", kind)
    assert (books / "out").read_bytes().startswith(b"pool,seq,")


@ids
def test_a_folder_and_a_missing_folder(
    words: tuple[str, ...], refused: Refused, books: Path
) -> None:
    """Both are said to be what they are."""
    (books / "reports.d").mkdir()
    assert "it is a folder; name a file in it" in refused(*filled(words, "reports.d"), "--force")
    assert "No such file or directory" in refused(*filled(words, "none/x"))
    assert "untouched" in refused(*filled(words, "trace.csv/x"))


@ids
def test_permissions_and_links_are_kept(words: tuple[str, ...], ledger: Run, books: Path) -> None:
    """A file that is replaced stays as readable as it was, and a link goes on pointing to it."""
    path, link = books / "out.bin", books / "newest"
    link.symlink_to("out.bin")
    ledger(*filled(words, "newest"))
    umask = os.umask(0)
    os.umask(umask)
    assert 0o666 & ~umask == stat.S_IMODE(path.stat().st_mode)
    for mode in (0o600, 0o640, 0o664):
        path.chmod(mode)
        ledger(*filled(words, "newest"))
        assert mode == stat.S_IMODE(path.stat().st_mode)
    assert link.is_symlink()


@ids
def test_a_failing_write_leaves_the_old_file_and_no_part(
    words: tuple[str, ...], ledger: Run, books: Path, tmp_path: Path
) -> None:
    """A file that may not grow stands for a disk that is full; the error is one line."""
    path = books / "out.bin"
    ledger(*filled(words, path), "--url", _immutable(books))
    before = path.read_bytes()
    names = sorted(books.iterdir())
    limit = min(len(before) // 2, 1_024)
    program = (
        "import resource, runpy, sys; from ledger import cli;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        "sys.argv[0] = 'ledger'; cli.main()"
    )
    for name in (path, books / "new.bin"):
        temporary = tmp_path / f"for-{name.name}"
        temporary.mkdir()
        done = programs.run(
            [sys.executable, "-c", program, *filled(words, name), "--url", _immutable(books)],
            env={**os.environ, "TMPDIR": str(temporary)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert 2 == done.returncode, done.stderr + done.stdout
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"Error: {name}: File too large; what was there before is untouched")
        assert [] == list(temporary.iterdir())
    assert before == path.read_bytes()
    assert names == sorted(books.iterdir())


def _immutable(folder: Path) -> str:
    """Return the address of the store for a reader that writes nothing, not even shared memory."""
    return f"sqlite:///file:{folder}/ledger.db?immutable=1&uri=true"


def test_interrupts_and_kills_leave_nothing(ledger: Run, books: Path) -> None:
    """Ctrl+C, a stop by the system and a kill leave the old file, and no part of a new one."""
    ledger("export", "out.csv")
    before, names = (books / "out.csv").read_bytes(), sorted(books.iterdir())
    program = (
        "import os, signal, sys, time; from ledger.reports.output_file import output_file\n"
        "with output_file('out.csv', force=True) as out:\n"
        "    out.write(b'part' * 100_000); out.flush()\n"
        "    os.kill(os.getpid(), int(sys.argv[1])); time.sleep(60)\n"
    )
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        done = programs.run(
            [sys.executable, "-c", program, str(int(sent))],
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert 0 > done.returncode or b"KeyboardInterrupt" in done.stderr
        assert before == (books / "out.csv").read_bytes()
        assert names == sorted(books.iterdir())


def test_where_no_file_is_without_a_name(books: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On other file systems the part has a name, and is removed when something goes wrong."""
    monkeypatch.delattr(os, "O_TMPFILE")
    with output_file(books / "out") as out:
        out.write(b"whole")
        assert 1 == len(list(books.glob(".ledger-*.part")))
    broken = output_file(books / "out", force=True)
    broken.__enter__().write(b"part")
    assert broken.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert b"whole" == (books / "out").read_bytes()
    assert [] == list(books.glob(".*"))


def test_streams_are_written_in_place(ledger: Run, books: Path) -> None:
    """-, /dev/stdout, a named pipe and a device take what they are sent."""
    csv = ledger("export", "-", "--format", "csv").out
    assert csv == ledger("export", "/dev/stdout", "--format", "csv").out
    page = ledger("report", "statement", "trace", "--html", "-").out
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert not (books / "-").exists()
    os.mkfifo(books / "pipe.csv")
    process = programs.Popen([LEDGER, "export", "pipe.csv"], stderr=subprocess.DEVNULL)
    assert csv.splitlines() == (books / "pipe.csv").read_text(encoding="utf-8").splitlines()
    assert 0 == process.wait(60)
    assert stat.S_ISFIFO((books / "pipe.csv").stat().st_mode)
    ledger("export", "/dev/null", "--format", "csv")
    said = ledger("export", "/dev/full", "--format", "csv", code=2).err
    assert "No space left on device" in said
    assert "only CSV and JSONL" in ledger("export", "pipe.csv", "--format", "xlsx", code=2).err


def test_standard_output_into_the_store_is_refused(
    books: Path, unharmed: Callable[[], None]
) -> None:
    """`>> ledger.db` would end the store as well."""
    for words in (("export", "-", "--format", "csv"), ("pool", "list"), ("export", "/dev/stdout")):
        for name in ("ledger.db", "ledger.db-lock"):
            with (books / name).open("ab") as out:
                done = programs.run(
                    [LEDGER, *words],
                    stdout=out,
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=120,
                    check=False,
                )
            assert 2 == done.returncode
            assert "output goes into the store itself" in done.stderr
    unharmed()


def test_a_full_device_is_an_error() -> None:
    """What could not be printed is not passed over in silence."""
    for words in (("pool", "list", "--format", "csv"), ("pool", "list"), ("report", "runs")):
        with Path("/dev/full").open("wb") as full:
            done = programs.run(
                [LEDGER, *words],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=120,
                check=False,
            )
        assert 2 == done.returncode
        assert done.stderr == "Error: standard output: No space left on device\n"
