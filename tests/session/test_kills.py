"""Statements killed at random moments: afterwards everything is as before it or as after it.

Eight by default; ``THANO_KILLS=100 pytest tests/session/test_kills.py`` takes that many.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import dagster as dg
import pytest

from thano_assets.catalog import EntryKind
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

KILLS = int(os.environ.get("THANO_KILLS", "8"))
ROWS = 2_000
PRELOADED = [
    "thano_assets.session",
    "dagster",
    "mlflow",
    "torch",
    "transformers",
    "duckdb",
    "pyarrow.parquet",
]
OPTIONS = "OPTIONS (epochs=2, batch_size=2, baseline=False, overwrite=True, max_length=16)"
LABELLED = "SELECT 'film ' || i AS text, i % 2 AS label FROM range(60) r(i)"


def statements(version: int) -> list[str]:
    """One of each kind that changes something; all rows of a table tell its version."""
    rows = f"SELECT {version} AS v, 'film ' || i AS text, i % 2 AS label FROM range({version * 20}) r(i)"
    return [
        f"COPY t OPTIONS (overwrite=True) FROM 'rows{version}.jsonl'",
        "COPY grown OPTIONS (if_exists='append') FROM 'rows1.jsonl'",
        f"CREATE OR REPLACE TABLE made AS {rows}",
        f"CREATE OR REPLACE TABLE said AS PREDICT USING m AS {rows}",
        f"CREATE OR REPLACE TABLE vectors AS CONVERT USING m AS {rows}",
        f"CREATE OR REPLACE TABLE why AS EXPLAIN PREDICT USING m AS {rows} LIMIT {version}",
        f"CREATE OR REPLACE TABLE judged AS EVALUATE USING m AS {rows}",
        "DROP TABLE IF EXISTS made",
        f"BUILD MODEL m USING ElectraEn {OPTIONS} AS {LABELLED}",
        f"BUILD MODEL other USING ElectraEn {OPTIONS} AS {LABELLED}",
        f"FIT MODEL fitted USING m OPTIONS (epochs=1, overwrite=True) AS {LABELLED}",
        "DELETE MODEL other",
        "UPLOAD MODEL uploaded OPTIONS (overwrite=True) FROM 'foreign'",
        "PROMOTE MODEL m VERSION 1",
        f"EXPECT v < {version + 10} ON t",
        f"DROP EXPECT v < {version + 10} ON t",
    ]


def execute(root: Path, text: str, connection: Connection) -> None:
    """In a process of its own: say when the statement begins, and how it ended."""
    with Session(root) as session:
        session.execute("SELECT 1")
        connection.send("begins")
        try:
            session.execute(text)
            connection.send("done")
        except Exception as error:
            connection.send(str(error))


def check(session: Session) -> None:
    """Tables, catalog and registry agree, and nothing is half there."""
    tables = {table.name: table.rows for table in session._runtime.warehouse.tables()}
    defined = {entry.name for entry in session.catalog.entries() if entry.kind.is_relation}
    assert set(tables) == defined
    for name in ("t", "made", "said", "vectors"):
        if name in tables:
            (row,) = (
                session.execute(f"SELECT count(DISTINCT v), min(v), count(*) FROM {name}").arrow().to_pylist()
            )
            distinct, version, rows = row.values()
            assert distinct == 1, name
            assert rows == version * (ROWS if name == "t" else 20), name
            entry = session.catalog.relation(name)
            assert entry is not None
            assert f"{version}" in entry.text
    if "grown" in tables:
        entry = session.catalog.relation("grown")
        assert entry is not None
        assert tables["grown"] == ROWS * len(entry.statements)
    registry = session._runtime.registry
    for name in registry.models():
        versions = registry.versions(name)
        assert sum("champion" in version.aliases for version in versions) == 1, name
        for version in versions:
            session.execute(f"PREDICT USING {name} VERSION {version.version} AS SELECT 'a' AS text")
        assert session.catalog.model(name) is not None
    assert {entry.name for entry in session.catalog.entries() if entry.kind is EntryKind.MODEL} == set(
        registry.models()
    )


@pytest.fixture
def prepared(small_workspace: Workspace, classifier: Path) -> Workspace:
    for version in (1, 2, 3):
        (small_workspace.data / f"rows{version}.jsonl").write_text(f'{{"v": {version}}}\n' * (version * ROWS))
    folder = small_workspace.data / "foreign"
    folder.mkdir()
    for file in classifier.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with Session(small_workspace) as session:
        for text in (*statements(1)[:3], statements(1)[8], statements(1)[12]):
            session.execute(text)
        check(session)
    return small_workspace


def test_nothing_is_half_done_after_a_kill(prepared: Workspace) -> None:
    chance = random.Random(KILLS)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    took: dict[str, float] = {}
    killed = 0
    while killed < KILLS:
        every = statements(chance.randint(1, 3))
        text = every[(killed * 5 + chance.randrange(2)) % len(every)]
        kind = text.split()[0] + text.partition(" AS ")[2][:8]
        ours, theirs = context.Pipe()
        child = context.Process(target=execute, args=(prepared.root, text, theirs))
        child.start()
        theirs.close()
        assert ours.recv() == "begins"
        began = time.monotonic()
        ended = ours.poll(chance.uniform(0, took.get(kind, 1.0)))
        said = ours.recv() if ended else ""
        took[kind] = max(took.get(kind, 0), time.monotonic() - began) * (1 if ended else 1.1)
        if not ended and child.pid:
            os.kill(child.pid, signal.SIGKILL)
        child.join(60)
        if said not in ("", "done"):
            assert "There is no" in said or "not expected" in said, (
                text,
                said,
            )  # what was to be deleted was gone already
        killed += 1
        with Session(prepared) as session:
            session.execute("CREATE OR REPLACE TABLE scratch AS SELECT 1 AS a")
            try:
                check(session)
            except AssertionError as error:
                raise AssertionError(
                    f"after killing {text!r} (kill {killed}, ended {ended}): {error}"
                ) from error
    instance = dg.DagsterInstance.from_config(str(prepared.dagster_home))
    open_ones = [run for run in instance.get_runs() if not run.is_finished]
    assert not open_ones
    assert not list(prepared.snapshots.glob(".stage-*"))
