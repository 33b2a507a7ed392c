"""Damage, full disks and leftovers: each is named with its cure, and the cure works."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.session.conftest import copied, made_once
from tests.session.test_processes import BUILD
from thano_assets.assets.runtime import Runtime
from thano_assets.catalog import catalog_of
from thano_assets.commands import doctor
from thano_assets.commands.damage import damages
from thano_assets.commands.housekeeping import leftovers, remove, usage
from thano_assets.errors import ThanoError, WorkspaceError
from thano_assets.learning import answering
from thano_assets.resources.backup import back_up, backup_of
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path, classifier: Path) -> Path:
    """A workspace with a table, two versions of a model and a prediction; made once, and only copied."""
    root = tmp_path_factory.mktemp("damage") / "workspace"
    workspace = made_once(root, mlflow_database, classifier)
    with Session(workspace) as session:
        session.execute("CREATE TABLE a AS SELECT 1 AS x")
        session.execute(BUILD.format(epochs=1))
        session.execute(BUILD.format(epochs=2))
        session.execute("CREATE TABLE p AS PREDICT USING m AS SELECT 'a b' AS text")
    return root


@pytest.fixture
def damaged(prepared: Path, tmp_path: Path) -> Workspace:
    """A copy of the prepared workspace: to be damaged."""
    return copied(prepared, tmp_path / "workspace")


def garbage(path: Path) -> None:
    for beside in path.parent.glob(f"{path.name}-*"):
        beside.unlink()
    path.write_bytes(b"garbage " * 100)


def noise(path: Path) -> None:
    """Numbers that are none in the middle of the weights; the file's head and size stay."""
    with path.open("r+b") as file:
        file.seek(-4000, os.SEEK_END)
        file.write(b"\xff" * 4000)


def versions(workspace: Workspace, name: str) -> list[Path]:
    folders = (workspace.mlflow / "artifacts" / "m" / "models").glob("*/artifacts/model")
    return sorted((folder / name for folder in folders), key=lambda path: path.stat().st_mtime)


CREATE = "CREATE OR REPLACE TABLE b AS SELECT x + 1 AS y FROM a"


@pytest.mark.parametrize(
    ("name", "harm", "statement", "says", "mended"),
    [
        ("runs", lambda w: garbage(w.dagster_home / "history/runs.db"), CREATE, "runs.db is no SQLite database", True),
        ("index", lambda w: garbage(w.dagster_home / "history/runs/index.db"), CREATE, "index.db is no SQLite database", True),
        ("settings", lambda w: (w.dagster_home / "dagster.yaml").write_text("a: [b"), CREATE, "dagster.yaml is no YAML", True),
        ("key", lambda w: (w.dagster_home / "dagster.yaml").write_text("foo: 1"), CREATE, "does not know, foo", True),
        ("mlflow", lambda w: garbage(w.mlflow / "mlflow.db"), "LIST MODEL", "mlflow.db is no SQLite database", True),
        ("mlflow gone", lambda w: (w.mlflow / "mlflow.db").unlink(), "LIST MODEL", "mlflow.db is missing", True),
        ("weights", lambda w: os.truncate(versions(w, "model.safetensors")[-1], 1000),
         "PREDICT USING m AS SELECT 'q q' AS text", "model.safetensors", True),
        ("noise", lambda w: noise(versions(w, "model.safetensors")[-1]),
         "PREDICT USING m AS SELECT 'q q' AS text", "model.safetensors holds other weights", True),
        ("tokenizer", lambda w: os.truncate(versions(w, "tokenizer.json")[-1], 100),
         "PREDICT USING m AS SELECT 'q q' AS text", "tokenizer.json is no JSON", True),
        ("config", lambda w: garbage(versions(w, "config.json")[-1]),
         "PREDICT USING m AS SELECT 'q q' AS text", "config.json is no JSON", True),
        ("warehouse", lambda w: garbage(w.warehouse_path), "SELECT * FROM a", "warehouse.duckdb is no DuckDB database", True),
        ("toml", lambda w: w.settings_path.write_bytes(b"\xff\xfe"), None, "thano.toml is not UTF-8", True),
        ("rows", lambda w: [garbage(path) for path in w.snapshots.glob("*.parquet")], None, "is no Parquet file", True),
        ("statement", lambda w: (w.statements / "tables/a.sql").write_text("CREATE GARBAGE"), None, "a.sql cannot be read, line 1", False),
        ("bytes", lambda w: (w.statements / "tables/a.sql").write_bytes(b"\xff\xfe"), "LIST TABLE", "a.sql is not UTF-8", False),
        ("check", lambda w: (w.statements / "tables/z.sql").write_text("SELECT 1"), None, "z.sql holds no statement of its kind", False),
        ("folder", lambda w: (shutil.rmtree(w.snapshots), w.snapshots.write_text("x")), None, "is a file, and must be a folder", False),
    ],
)  # fmt: skip
def test_damage_is_named_and_mended(
    damaged: Workspace,
    name: str,
    harm: Callable[[Workspace], object],
    statement: str | None,
    says: str,
    mended: bool,
) -> None:
    harm(damaged)
    answering._CACHES.clear()  # as in a process that has not loaded the model yet
    assert any(says in damage.message for damage in damages(damaged)), name
    if statement is not None:
        with Session(damaged) as session, pytest.raises(ThanoError) as caught:
            session.execute(statement)
        assert says in caught.value.message or (
            name == "noise" and "weights are damaged" in caught.value.message
        )
        assert "unexpected" not in str(caught.value)
    told: list[str] = []
    doctor.repair(str(damaged.root), told.append)
    assert any(says in text for text in told)
    if mended:
        assert not [damage for damage in damages(damaged) if damage.repair is not None]
        with Session(damaged) as session:
            session.execute(CREATE)
            assert session.execute("SELECT * FROM b").arrow().to_pylist() == [{"y": 2}]
            assert session.execute("SELECT * FROM p").row_count == 1
            assert session.execute("LIST MODEL").arrow().column("name").to_pylist() == ["m"]


def test_an_index_that_is_made_again_knows_what_was_made(damaged: Workspace) -> None:
    garbage(damaged.dagster_home / "history/runs/index.db")
    doctor.repair(str(damaged.root), print)
    with Session(damaged) as session:
        assert session.plan("CREATE TABLE a AS SELECT 1 AS x").summary == "nothing to do"


def test_a_model_without_files_is_listed_all_the_same(damaged: Workspace) -> None:
    for path in versions(damaged, "config.json"):
        path.unlink()
    with Session(damaged) as session:
        assert session.execute("LIST MODEL").arrow().column("name").to_pylist() == ["m"]
        assert session.execute("LIST THANOSQL MODEL").row_count
        assert "2 versions" in session.execute("DELETE MODEL m").summary


def test_a_statement_that_is_broken_is_not_a_table_that_is_missing(damaged: Workspace) -> None:
    (damaged.statements / "tables" / "a.sql").write_text("CREATE GARBAGE")
    with Session(damaged) as session:
        session._runtime.warehouse.drop("a")
        with pytest.raises(
            WorkspaceError, match=r"The statement of a, statements/tables/a.sql, cannot be read"
        ):
            session.execute("SELECT * FROM a")


# ------------------------------------------------------------------------------------------------ full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk can be made by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")
def test_a_full_disk(small_disk: Path) -> None:
    def fresh() -> Session:  # a process of its own knows no open connection
        return Session(small_disk / "ws")

    with fresh() as session:
        session.execute("CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT 2 AS x")
        size = session.workspace.warehouse_path.stat().st_size
        with pytest.raises(WorkspaceError, match="no space left"):
            session.execute(
                "CREATE TABLE big AS SELECT i, hash(i) AS h, random() AS r FROM range(3000000) t(i)"
            )
        assert session.workspace.warehouse_path.stat().st_size <= size  # it gave back what it took
        session.execute("CREATE TABLE c AS SELECT 3 AS x")
    with (small_disk / "fill").open("wb") as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            file.flush()
    assert shutil.disk_usage(small_disk).free == 0
    with fresh() as session:
        with pytest.raises(WorkspaceError, match="no space left"):
            session.execute("CREATE TABLE d AS SELECT 4 AS x")
        assert session.execute("SELECT * FROM a").arrow().to_pylist() == [{"x": 1}]
    with fresh() as session:
        session.execute("DROP TABLE b")
    (small_disk / "fill").unlink()
    with fresh() as session:
        assert session.execute("LIST TABLE").arrow().column("table_name").to_pylist() == ["a", "c"]
        assert session.workspace._reserve.exists()


# --------------------------------------------------------------------------------------- reading and leftovers


@pytest.mark.parametrize(
    "text", ["LIST TABLE", "SELECT 1 AS a", "PLAN CREATE TABLE t AS SELECT 1 AS a", "SHOW RUNS", "SELEC 1"]
)
def test_reading_makes_no_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with Session(tmp_path / "typo") as session, pytest.raises(ThanoError):
        session.execute(text)
    with Session() as session:
        if text == "SELEC 1":
            with pytest.raises(ThanoError):
                session.execute(text)
        else:
            session.execute(text)
    assert not list(tmp_path.iterdir())


def test_a_name_like_it_is_offered(tmp_path: Path) -> None:
    open_workspace(tmp_path / "reviews")
    with Session(tmp_path / "revews") as session, pytest.raises(WorkspaceError) as caught:
        session.execute("LIST TABLE")
    assert str(tmp_path / "reviews") in str(caught.value.hint)


def test_what_nothing_needs_is_removed_and_what_answers_stays(damaged: Workspace) -> None:
    with Session(damaged) as session:
        session.execute("PROMOTE MODEL m VERSION 1")
        session.execute(BUILD.format(epochs=3))
        session.execute("PROMOTE MODEL m VERSION 1")
    runtime = Runtime.of(damaged)
    assert leftovers(runtime, catalog_of(damaged), None) == []
    found = leftovers(runtime, catalog_of(damaged), 1)
    assert [one.version for one in found] == [("m", 2)]  # version 1 answers, version 3 is the newest
    before = sum(part.bytes for part in usage(damaged))
    assert remove(found, runtime) > 0
    assert sum(part.bytes for part in usage(damaged)) < before
    assert [version.version for version in runtime.registry.versions("m")] == [1, 3]


def test_a_damaged_database_does_not_become_its_own_backup(damaged: Workspace) -> None:
    database, backup = damaged.mlflow / "mlflow.db", backup_of(damaged)
    sound = backup.read_bytes()
    with database.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xaa" * 4096)
    back_up(damaged)
    assert backup.read_bytes() == sound


def test_a_drop_that_was_killed_is_finished(damaged: Workspace) -> None:
    script = (
        "import os, sys; from thano_assets.resources.warehouse import Warehouse; from thano_assets.session import Session\n"
        "Warehouse.drop = lambda self, name: os.kill(os.getpid(), 9)\n"
        "Session(sys.argv[1]).execute('DROP TABLE a')"
    )
    done = subprocess.run([sys.executable, "-c", script, str(damaged.root)], check=False, capture_output=True)
    assert done.returncode == -9
    with Session(damaged) as session:
        assert session.execute("LIST TABLE").arrow().column("table_name").to_pylist() == ["p"]
        assert not session._runtime.warehouse.exists("a")
    assert damaged.unfinished_drops() == []
