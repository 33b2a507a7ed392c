"""Several processes in one workspace, and processes that are killed in the middle of their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

from tests.session.conftest import traces
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

ROOT = Path(__file__).parents[2]

RUN = """
import sys
from thano_assets.session import Session
with Session(sys.argv[1]) as session:
    print("ready", flush=True)
    print(session.execute(sys.argv[2]).summary, flush=True)
"""

BUILD = (
    "BUILD MODEL m USING ElectraEn OPTIONS (epochs={epochs}, batch_size=2, baseline=False, overwrite=True) AS "
    "SELECT 'film ' || i AS text, i % 2 AS label FROM range(200) r(i)"
)


def start(workspace: Workspace, text: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(workspace.root), text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out.splitlines()[-1]


def test_processes_that_start_together_in_a_fresh_workspace_all_succeed(small_workspace: Workspace) -> None:
    texts = [
        f"CREATE OR REPLACE TABLE shared AS SELECT {n} AS n; CREATE TABLE own_{n} AS SELECT * FROM shared"
        for n in range(3)
    ]
    processes = [start(small_workspace, text) for text in texts]
    for process in processes:
        finish(process)
    with Session(small_workspace) as session:
        assert session.catalog.names() == ["own_0", "own_1", "own_2", "shared"]
        assert session.execute("SELECT count(*) AS n FROM own_0, own_1, own_2").arrow().to_pylist() == [
            {"n": 1}
        ]
        last = session.execute("SELECT n FROM shared").arrow().to_pylist()[0]["n"]
        entry = session.catalog.relation("shared")
        assert entry is not None
        assert last in range(3)


def test_appends_at_the_same_time_all_arrive(small_workspace: Workspace) -> None:
    with Session(small_workspace) as session:
        session.execute("COPY t FROM '[{\"n\": 0}]'")
    texts = [f"COPY t OPTIONS (if_exists='append') FROM '[{{\"n\": {n}}}]'" for n in (1, 2, 3)]
    processes = [start(small_workspace, text) for text in texts]
    for process in processes:
        finish(process)
    with Session(small_workspace) as session:
        rows = session.execute("SELECT n FROM t ORDER BY n").arrow().column("n").to_pylist()
        assert rows == [0, 1, 2, 3]
        entry = session.catalog.relation("t")
        assert entry is not None
        assert len(entry.statements) == 4


def test_two_builds_of_one_model_make_two_versions(small_workspace: Workspace) -> None:
    processes = [start(small_workspace, BUILD.format(epochs=1)) for _ in range(2)]
    for process in processes:
        finish(process)
    with Session(small_workspace) as session:
        versions = session._runtime.registry.versions("m")
        assert sorted(version.version for version in versions) == [1, 2]
        assert len({version.tags["thano.data_version"] for version in versions}) == 1
        assert session.execute(
            "SELECT count(*) AS n FROM (PREDICT USING m AS SELECT 'a' AS text)"
        ).arrow().to_pylist() == [{"n": 1}]


def wait_for(condition: object, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]  # a function without arguments
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_training_that_is_killed_leaves_no_version_and_can_be_run_again(small_workspace: Workspace) -> None:
    with Session(small_workspace) as session:
        session.execute(BUILD.format(epochs=1))
        before = traces(session)
    child = start(small_workspace, BUILD.format(epochs=500))
    # Its checkpoint folder appears once it trains.
    checkpoints = small_workspace.models_cache / "checkpoints"
    wait_for(lambda: any(path.is_file() for path in checkpoints.rglob("*")) or child.poll() is not None)
    assert child.poll() is None, child.communicate()
    child.send_signal(signal.SIGKILL)
    child.wait()
    with Session(small_workspace) as session:
        assert traces(session) == before  # the catalog too: the old statement stays with the old model
        session.execute("CREATE TABLE t AS SELECT 1 AS a")
        instance = dg.DagsterInstance.from_config(str(small_workspace.dagster_home))
        assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        session.execute(BUILD.format(epochs=1))
        assert len(session._runtime.registry.versions("m")) == 2


def test_a_prediction_that_is_killed_leaves_the_old_table(small_workspace: Workspace) -> None:
    predict = "CREATE OR REPLACE TABLE answers AS PREDICT USING m AS SELECT 'film ' || i AS text FROM range({rows}) r(i)"
    with Session(small_workspace) as session:
        session.execute(BUILD.format(epochs=1))
        session.execute(predict.format(rows=3))
    child = start(small_workspace, predict.format(rows=3_000_000))
    wait_for(lambda: any(small_workspace.snapshots.glob(".stage-*")) or child.poll() is not None)
    time.sleep(1)
    assert child.poll() is None, child.communicate()
    child.send_signal(signal.SIGKILL)
    child.wait()
    with Session(small_workspace) as session:
        assert session.execute("SELECT count(*) AS n FROM answers").arrow().to_pylist() == [{"n": 3}]
        session.execute(predict.format(rows=4))
        assert session.execute("SELECT count(*) AS n FROM answers").arrow().to_pylist() == [{"n": 4}]
    assert not list(small_workspace.snapshots.glob(".stage-*"))


def test_asking_cheaply_imports_little(small_workspace: Workspace) -> None:
    code = (
        "import sys; from thano_assets.session import Session; s = Session(sys.argv[1]); s.execute('SELECT 1 AS a');"
        "s.execute('SELECT * FROM (LIST TABLE)'); s.execute('LIST MODEL');"
        "print(sorted({'torch', 'transformers', 'mlflow', 'dagster', 'sklearn'} & set(sys.modules)));"
        "s.plan(\"CREATE TABLE t AS SELECT 1 AS a; PREDICT USING tutorial_text_classification AS SELECT 'a' AS text\");"
        "print(sorted({'torch', 'transformers', 'mlflow', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(small_workspace.root)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.splitlines() == ["[]", "[]"]
