"""``thano shell``: a prompt that outlives errors, knows when a statement ends, and completes what fits."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from thano_assets.interfaces.batch import Terminal
from thano_assets.interfaces.shell import Shell, Words, is_complete
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session


@pytest.fixture
def place(tmp_path: Path, mlflow_database: Path) -> Workspace:
    workspace = open_workspace(tmp_path / "workspace")
    shutil.copy2(mlflow_database, workspace.mlflow / "mlflow.db")
    return workspace


@pytest.fixture
def session(place: Workspace) -> Iterator[Session]:
    with Session(place) as session:
        session.execute("CREATE TABLE movies AS SELECT 1 AS rating, 'a' AS \"my text\"")
        yield session


def typed(session: Session, *lines: str) -> None:
    given = iter(lines)

    def prompt() -> str:
        try:
            line = next(given)
        except StopIteration:
            raise EOFError from None
        if line == "^C":
            raise KeyboardInterrupt
        return line

    Shell(session, Terminal(), prompt).run()


def test_a_statement_is_done_and_the_next_one_is_asked_for(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(
        session, "SELECT 41 + 1 AS answer;", "^C", "SELECT * FORM t;", "SELECT 7 AS seven; SELECT 8 AS eight;"
    )
    out, err = capsys.readouterr()
    assert re.findall(r"\b(42|7|8)\b", out) == ["42", "7", "8"]
    assert "Did you mean FROM" in err


def test_commands(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    typed(
        session,
        "\\d",
        "\\d movies",
        "\\plan CREATE TABLE x AS SELECT 1 AS a;",
        "\\timing",
        "SELECT 1 AS a;",
        "\\nope",
        "\\?",
        "\\q",
        "SELECT 99 AS never;",
    )
    out, err = capsys.readouterr()
    assert "movies" in out
    assert "my text" in out
    assert "tables/x" in out
    assert re.search(r"\d\.\d\d s", err)
    assert "\\nope is no command of the shell" in err
    assert "\\models" in err
    assert "99" not in out
    assert "x" not in session.table_names()


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("", True),
        ("SELECT 1", False),
        ("SELECT 1;", True),
        ("SELECT 1;  \n", True),
        ("SELECT ';", False),
        ("SELECT ';';", True),
        ("SELECT 1 -- ;", False),
        ("SELECT 1; -- done", True),
        ("SELECT /* ;", False),
        ("SELECT $$ ; ", False),
        ("\\d movies", True),
    ],
)
def test_where_a_statement_ends(text: str, complete: bool) -> None:
    assert is_complete(text) is complete


@pytest.mark.parametrize(
    ("before", "wanted", "unwanted"),
    [
        ("SELECT * FROM mo", {"movies"}, {"MODEL"}),
        ("SELECT ra", {"rating"}, set()),
        ("SELECT my", {'"my text"'}, set()),
        ("BUILD MODEL m USING Elec", {"ElectraEn"}, {"ELSE"}),
        ("BUILD MODEL m USING ElectraEn OPTIONS (ep", set(), {"EXPECT"}),
        ("BUILD MODEL m USING ElectraEn OPTIONS (max_", {"max_epochs", "max_length"}, set()),
        ("PREDICT USING m OPTIONS (text_col='review', ver", {"version_col"}, set()),
        ("SELECT 1; COPY t FROM 'a.csv' OPTIONS (del", {"delimiter"}, set()),
        ("buil", {"build"}, set()),
        ("BUIL", {"BUILD"}, set()),
        ("\\mo", {"\\models"}, set()),
        ("SELECT 'mo", set(), {"movies"}),
    ],
)
def test_what_fits_is_offered(session: Session, before: str, wanted: set[str], unwanted: set[str]) -> None:
    found = {one.text for one in Words(session).get_completions(Document(before), CompleteEvent())}
    assert wanted <= found
    assert not unwanted & found


def test_at_a_terminal_lines_history_and_interrupts_work(place: Workspace, tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.environ |= {"TERM": "xterm", "XDG_STATE_HOME": str(tmp_path), "COLUMNS": "100"}
        code = "from thano_assets.interfaces.cli import main; main()"
        os.execv(sys.executable, [sys.executable, "-c", code, "-w", str(place.root), "shell"])
    shown = ""

    def wait_for(text: str) -> None:
        nonlocal shown
        until = time.monotonic() + 30
        while text not in shown:
            assert time.monotonic() < until, shown[-2000:]
            if select.select([terminal], [], [], 0.2)[0]:
                data = os.read(terminal, 65536)
                if b"\x1b[6n" in data:
                    os.write(terminal, b"\x1b[1;1R")  # the terminal says where its cursor is
                shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode(errors="replace"))
        shown = shown.partition(text)[2]

    try:
        wait_for("workspace>")
        os.write(terminal, b"SELECT 40\r+ 2 AS answer;\r")
        wait_for("42")
        wait_for("workspace>")
        os.write(terminal, b"SELECT count(*) FROM range(100000000000) a, range(100000) b;\r")
        wait_for("b;")
        time.sleep(1.5)
        os.write(terminal, b"\x03")
        wait_for("Stopped.")
        wait_for("workspace>")
        os.write(terminal, b"\x1b[A\x1b[A\r")  # the line before the last one
        wait_for("42")
        wait_for("workspace>")
        os.write(terminal, b"\x04")
        with contextlib.suppress(OSError):  # nobody writes there any more
            wait_for("what no one says")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.close(terminal)
    assert "SELECT 40" in (tmp_path / "thano" / "history").read_text()
    assert (tmp_path / "thano" / "history").stat().st_mode & 0o777 == 0o600
