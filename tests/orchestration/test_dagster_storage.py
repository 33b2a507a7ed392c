"""Our storage writes what Dagster's own class reads, event by event, and the other way round."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from thano_assets.orchestration.dagster_compat import open_instance, run_assets
from thano_assets.orchestration.dagster_storage import with_open_connections


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    instance = open_instance(tmp_path)
    yield instance
    instance.dispose()


@pytest.fixture
def dagsters(tmp_path: Path, ours: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """As the web server opens the same folder."""
    instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path)))
    yield instance
    instance.dispose()


def run(instance: dg.DagsterInstance, version: str = "1") -> str:
    """Materialize one asset."""

    @dg.asset(name="thing")
    def thing() -> dg.MaterializeResult:
        return dg.MaterializeResult(data_version=dg.DataVersion(version))

    definitions = dg.Definitions(assets=[thing], executor=dg.in_process_executor)
    return run_assets(definitions, {thing.key}, instance, tags={}, log_level="CRITICAL")


def data_version(instance: dg.DagsterInstance) -> str | None:
    event = instance.get_latest_materialization_event(dg.AssetKey("thing"))
    assert event is not None
    assert event.asset_materialization is not None
    return (event.asset_materialization.tags or {}).get("dagster/data_version")


def kinds(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [
        entry.dagster_event.event_type_value for entry in instance.all_logs(run_id) if entry.dagster_event
    ]


def test_a_process_that_runs_statements_has_it(ours: dg.DagsterInstance) -> None:
    assert isinstance(ours.event_log_storage, SqliteEventLogStorage)
    assert type(ours.event_log_storage) is not SqliteEventLogStorage


def test_dagster_reads_our_runs_and_we_read_its_runs(
    ours: dg.DagsterInstance, dagsters: dg.DagsterInstance
) -> None:
    first = run(ours, "a")
    assert data_version(dagsters) == "a"
    assert kinds(dagsters, first) == kinds(ours, first)
    assert kinds(ours, first)[-1] == "PIPELINE_SUCCESS"
    second = run(dagsters, "b")
    assert data_version(ours) == "b"
    assert kinds(ours, second) == kinds(dagsters, second) == kinds(ours, first)
    assert {each.run_id for each in ours.get_runs()} == {first, second}


def test_the_database_of_a_run_is_the_one_that_dagster_makes(
    ours: dg.DagsterInstance, dagsters: dg.DagsterInstance, tmp_path: Path
) -> None:
    found = []
    for instance in (ours, dagsters):
        path = tmp_path / "history" / "runs" / f"{run(instance)}.db"
        with sqlite3.connect(path) as connection:
            tables = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
            revision = connection.execute("SELECT * FROM alembic_version").fetchall()
            mode = connection.execute("PRAGMA journal_mode").fetchall()
        connection.close()
        found.append((tables, revision, mode))
    assert found[0] == found[1]


def test_who_watches_a_run_sees_its_events_as_they_come(
    ours: dg.DagsterInstance, dagsters: dg.DagsterInstance
) -> None:
    seen = threading.Event()

    @dg.asset(name="slow")
    def slow(context) -> None:  # Dagster does not take an annotation that is text
        def told(entry: dg.EventLogEntry, _: str) -> None:
            if "a line for whoever watches" in entry.user_message:
                seen.set()

        dagsters.watch_event_logs(context.run.run_id, None, told)
        context.log.info("a line for whoever watches")
        assert seen.wait(20), "the event was not seen while the run went on"

    definitions = dg.Definitions(assets=[slow], executor=dg.in_process_executor)
    run_assets(definitions, {slow.key}, ours, tags={}, log_level="CRITICAL")
    assert seen.is_set()


def test_nothing_stays_open(ours: dg.DagsterInstance, tmp_path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")

    def opened() -> set[str]:
        links = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                links.append(descriptor.readlink())
        return {link.name for link in links if link.is_relative_to(tmp_path) and link.suffix == ".db"}

    run_ids = [run(ours) for _ in range(4)]
    assert opened() == {"index.db", "runs.db", *(f"{run_id}.db" for run_id in run_ids[-2:])}
    ours.dispose()
    assert opened() == set()
    assert data_version(ours) == "1"  # it opens again where it is asked again


def test_another_storage_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(
        "storage:\n  postgres:\n    postgres_url: postgresql://somebody@somewhere/db\n"
    )
    ref = InstanceRef.from_dir(str(tmp_path))
    assert with_open_connections(ref) is ref


def test_a_folder_of_sqlite_files_elsewhere_is_kept(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(f"storage:\n  sqlite:\n    base_dir: {tmp_path / 'elsewhere'}\n")
    instance = open_instance(tmp_path)
    run(instance)
    instance.dispose()
    assert (tmp_path / "elsewhere" / "history" / "runs" / "index.db").is_file()


def test_a_kill_loses_no_event_that_was_told(tmp_path: Path) -> None:
    code = (
        "import dagster as dg, sys, time\n"
        "from pathlib import Path\n"
        "from thano_assets.orchestration.dagster_compat import open_instance, run_assets\n"
        "@dg.asset\n"
        "def thing(context):\n"
        "    context.log.info('the last line')\n"
        "    print(context.run.run_id, flush=True)\n"
        "    time.sleep(600)\n"
        "definitions = dg.Definitions(assets=[thing], executor=dg.in_process_executor)\n"
        f"instance = open_instance(Path({str(tmp_path)!r}))\n"
        "run_assets(definitions, {thing.key}, instance, tags={}, log_level='CRITICAL')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path)))
    assert "the last line" in [entry.user_message for entry in instance.all_logs(run_id)]
    instance.dispose()
    again = open_instance(tmp_path)
    run(again, "after")
    assert data_version(again) == "after"
    again.dispose()
