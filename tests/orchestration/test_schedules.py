"""Schedules and watched files: what Dagster does by itself is what a plan says, and nothing where nothing changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._utils.schedules import is_valid_cron_string

from tests.session.conftest import write_rows
from thano_assets.errors import InvalidOption, ThanoError
from thano_assets.graph import Graph
from thano_assets.orchestration import schedules as schedules_module
from thano_assets.orchestration.factory import build_definitions
from thano_assets.orchestration.resources import resources_for
from thano_assets.orchestration.schedules import schedules, watchers
from thano_assets.planning.observation import observed
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session
from thano_assets.sql import parse
from thano_assets.sql.cron import SHORT_FORMS, cron_problem

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Daemon:
    """What the daemon does with a workspace, tick by tick."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.instance = dg.DagsterInstance.from_config(str(workspace.dagster_home))
        self.cursor: str | None = None

    @property
    def definitions(self) -> dg.Definitions:
        with Session(self.workspace) as session:
            graph = observed(Graph(session.catalog.entries()), self.workspace)
        return build_definitions(
            graph,
            resources_for(self.workspace),
            schedules=schedules(graph, self.workspace),
            sensors=watchers(graph, self.workspace),
        )

    def tick(self, name: str) -> dg.RunRequest | str:
        """One tick of the schedule or sensor: the run that it asks for, or why it asks for none."""
        repository = self.definitions.get_repository_def()
        data: Any
        if repository.has_schedule_def(name):
            with dg.build_schedule_context(self.instance, repository_def=repository) as schedule_context:
                data = repository.get_schedule_def(name).evaluate_tick(schedule_context)
        else:
            with dg.build_sensor_context(
                self.instance, cursor=self.cursor, repository_def=repository
            ) as sensor_context:
                data = repository.get_sensor_def(name).evaluate_tick(sensor_context)
            self.cursor = data.cursor
        if data.run_requests:
            (request,) = data.run_requests
            return request
        assert data.skip_message is not None
        return data.skip_message

    def run(self, request: dg.RunRequest) -> bool:
        """Run what a tick asked for, as the daemon has it run; tells whether it succeeded."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        result = job.get_subset(asset_selection=set(request.asset_selection or ())).execute_in_process(
            instance=self.instance,
            asset_selection=list(request.asset_selection or ()),
            tags=dict(request.tags),
            raise_on_error=False,
            run_config=QUIET,
        )
        return result.success


def selected(request: dg.RunRequest | str) -> list[str]:
    assert isinstance(request, dg.RunRequest), request
    return [key.to_user_string() for key in request.asset_selection or ()]


@pytest.fixture(autouse=True)
def _nobody_has_asked() -> None:
    schedules_module._asked.clear()


@pytest.fixture
def daemon(workspace: Workspace) -> Daemon:
    (workspace.data / "in").mkdir()
    write_rows(workspace, "in/one.jsonl", [{"text": "a", "n": 1}])
    with Session(workspace) as session:
        session.execute(
            """
            COPY 영화 FROM 'in/*.jsonl' OPTIONS (watch=True, schedule='@daily');
            CREATE TABLE plain AS SELECT * FROM 영화;
            """
        )
    return Daemon(workspace)


def schedule_name(daemon: Daemon) -> str:
    (found,) = daemon.definitions.get_repository_def().schedule_defs
    return str(found.name)


def sensor_name(daemon: Daemon) -> str:
    (found,) = daemon.definitions.get_repository_def().sensor_defs
    return str(found.name)


def test_the_option_becomes_a_schedule_that_is_on(daemon: Daemon) -> None:
    (schedule,) = daemon.definitions.get_repository_def().schedule_defs
    assert schedule.name.startswith("tables")
    assert schedule.cron_schedule == "@daily"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.execution_timezone == "UTC"
    assert "watch=True, schedule='@daily'" in (schedule.description or "")


def test_without_the_option_the_schedule_and_the_sensor_are_gone(daemon: Daemon) -> None:
    with Session(daemon.workspace) as session:
        session.execute("COPY 영화 FROM 'in/*.jsonl' OPTIONS (overwrite=True)")
    repository = daemon.definitions.get_repository_def()
    assert (list(repository.schedule_defs), list(repository.sensor_defs)) == ([], [])


def test_a_schedule_runs_what_is_out_of_date_and_nothing_else(daemon: Daemon) -> None:
    name = schedule_name(daemon)
    skipped = daemon.tick(name)
    assert isinstance(skipped, str)
    assert skipped.startswith("Nothing is out of date: raw/영화: unchanged")
    write_rows(daemon.workspace, "in/two.jsonl", [{"text": "b", "n": 2}])
    request = daemon.tick(name)
    assert selected(request) == ["raw/영화", "tables/영화"]
    assert isinstance(request, dg.RunRequest)
    assert request.tags["thano/incremental"] == "true"
    assert "two.jsonl" in request.tags["thano/reason"]
    assert daemon.run(request)
    assert isinstance(daemon.tick(name), str)


def test_a_schedule_waits_for_its_own_last_run(daemon: Daemon) -> None:
    name = schedule_name(daemon)
    write_rows(daemon.workspace, "in/two.jsonl", [{"text": "b", "n": 2}])
    job = daemon.definitions.resolve_implicit_global_asset_job_def()
    run = daemon.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/schedule_name": name}
    )
    assert daemon.tick(name) == f"The run {run.run_id} has not ended yet."
    daemon.instance.report_run_failed(run)
    assert isinstance(daemon.tick(name), dg.RunRequest)


def test_models_and_predictions_have_schedules_of_their_own(workspace: Workspace) -> None:
    text = """
        BUILD MODEL "내 m" USING ElectraEn OPTIONS (schedule='0 3 * * 1') AS SELECT * FROM t;
        FIT MODEL more USING "내 m" OPTIONS (schedule='0 4 * * mon-fri') AS SELECT * FROM t;
        CREATE TABLE p AS PREDICT USING "내 m" OPTIONS (schedule='@hourly') AS SELECT * FROM t
    """
    from thano_assets.catalog import entry_of

    entries = [entry for statement in parse(text) if (entry := entry_of(statement)) is not None]
    found = schedules(Graph(entries), workspace)
    assert sorted((str(one.cron_schedule), one.name) for one in found)[1:] == [
        ("0 4 * * mon-fri", "models__more"),
        ("@hourly", "predictions__p"),
    ]
    assert found[0].name.startswith("models__")
    build_definitions(Graph(entries), {}, schedules=found)  # names are legal beside those of the assets


def test_the_time_zone_is_a_setting(daemon: Daemon) -> None:
    (daemon.workspace.root / "thano.toml").write_text('[dagster]\ntimezone = "Asia/Seoul"\n')
    daemon.workspace = open_workspace(daemon.workspace.root)
    (schedule,) = daemon.definitions.get_repository_def().schedule_defs
    assert schedule.execution_timezone == "Asia/Seoul"
    (daemon.workspace.root / "thano.toml").write_text('[dagster]\ntimezone = "Seoul"\n')
    with pytest.raises(ThanoError, match="must be the name of a time zone"):
        open_workspace(daemon.workspace.root)


def test_a_file_is_read_once_it_is_left_alone(daemon: Daemon) -> None:
    name = sensor_name(daemon)
    waiting = "Files have changed; they are read once they are left alone."
    assert daemon.tick(name) == waiting  # nothing is known of them yet
    assert str(daemon.tick(name)).startswith("Nothing is out of date")
    assert daemon.tick(name) == "No file has changed."
    file = daemon.workspace.data / "in" / "two.jsonl"
    file.write_text('{"text": "b", "n": 2}\n{"te')
    assert daemon.tick(name) == waiting
    file.write_text('{"text": "b", "n": 2}\n{"text": "c", "n": 3}\n')
    assert daemon.tick(name) == waiting
    request = daemon.tick(name)
    assert selected(request) == ["raw/영화", "tables/영화", "tables/plain"]
    assert isinstance(request, dg.RunRequest)
    assert daemon.tick(name) == "No file has changed."
    assert daemon.run(request)
    with Session(daemon.workspace) as session:
        assert session.execute("SELECT count(*) AS n FROM plain").arrow().to_pylist() == [{"n": 3}]


def test_a_broken_file_fails_once_with_its_sentence(daemon: Daemon) -> None:
    name = sensor_name(daemon)
    (daemon.workspace.data / "in" / "two.jsonl").write_text('{"text": "b", "n": \n')
    daemon.tick(name)
    request = daemon.tick(name)
    assert isinstance(request, dg.RunRequest)
    assert not daemon.run(request)
    assert daemon.tick(name) == "No file has changed."
    with Session(daemon.workspace) as session:
        newest = session.execute("SHOW RUNS").arrow().to_pylist()[0]
        assert session.execute("SELECT count(*) AS n FROM plain").arrow().to_pylist() == [{"n": 1}]
    assert newest["status"] == "failure"
    assert newest["error"].startswith("'two.jsonl'")


def test_an_unreadable_file_fails_its_schedule_once_until_it_changes(daemon: Daemon) -> None:
    name, file = schedule_name(daemon), daemon.workspace.data / "in" / "two.jsonl"
    file.write_text('{"text": "b", "n": \n')
    request = daemon.tick(name)
    assert isinstance(request, dg.RunRequest)
    assert not daemon.run(request)
    for _ in range(2):
        skipped = str(daemon.tick(name))
        assert skipped.startswith("tables/영화 failed in the run ")
        assert "(data-file: 'two.jsonl'" in skipped
    # The watcher knows it too, and does not fail on it a second time.
    watcher = sensor_name(daemon)
    daemon.tick(watcher)
    assert str(daemon.tick(watcher)).startswith("tables/영화 failed in the run ")
    file.write_text('{"text": "b", "n": 2}\n')
    request = daemon.tick(name)
    assert selected(request) == ["raw/영화", "tables/영화"]
    assert isinstance(request, dg.RunRequest)
    assert daemon.run(request)
    assert str(daemon.tick(name)).startswith("Nothing is out of date")


def test_a_schedule_and_a_watcher_start_one_run_for_one_change(daemon: Daemon) -> None:
    write_rows(daemon.workspace, "in/two.jsonl", [{"text": "b", "n": 2}])
    watcher = sensor_name(daemon)
    daemon.tick(watcher)
    request = daemon.tick(schedule_name(daemon))
    assert isinstance(request, dg.RunRequest)
    assert str(daemon.tick(watcher)).endswith("has just asked for raw/영화.")
    assert daemon.run(request)
    schedules_module._asked.clear()  # a minute later
    assert selected(daemon.tick(watcher)) == ["tables/plain"]


def test_rows_that_break_an_expectation_fail_one_run_and_hold_up_later_ones(daemon: Daemon) -> None:
    name = sensor_name(daemon)
    with Session(daemon.workspace) as session:
        session.execute("EXPECT n < 5 ON 영화")
    write_rows(daemon.workspace, "in/two.jsonl", [{"text": "b", "n": 8}])
    daemon.tick(name)
    request = daemon.tick(name)
    assert selected(request) == ["raw/영화", "tables/영화", "tables/plain"]
    assert isinstance(request, dg.RunRequest)
    assert not daemon.run(request)
    daemon.cursor = None
    daemon.tick(name)
    assert daemon.tick(name) == "1 of 2 rows of 영화 breaks EXPECT n < 5."
    write_rows(daemon.workspace, "in/two.jsonl", [{"text": "b", "n": 4}])
    daemon.tick(name)
    request = daemon.tick(name)
    assert selected(request) == ["raw/영화", "tables/영화", "tables/plain"]
    assert isinstance(request, dg.RunRequest)
    assert daemon.run(request)


def test_a_folder_that_is_empty_is_waited_for(daemon: Daemon) -> None:
    name = sensor_name(daemon)
    (daemon.workspace.data / "in" / "one.jsonl").unlink()
    assert str(daemon.tick(name)).startswith("No file matches 'in/*.jsonl'")


def test_only_the_time_of_a_file_makes_no_run(daemon: Daemon) -> None:
    name = sensor_name(daemon)
    for _ in range(2):
        daemon.tick(name)
    file: Path = daemon.workspace.data / "in" / "one.jsonl"
    text = file.read_text()
    file.unlink()
    file.write_text(text + "\n")
    file.write_text(text)
    daemon.tick(name)
    assert str(daemon.tick(name)).startswith("Nothing is out of date")


GOOD_CRON = [
    "0 3 * * 1", "* * * * *", "*/5 * * * *", "0 0 29 2 *", "0 0 * jan MON", "0 0 * JAN-MAR mon-fri", "0 0 * * 7",
    "1-5,7 * * * 0-7", "00 03 * * *", "8-18/2 * * * *", "0 0 30 2,3 *", " 0  3 * * 1 ", "0 0 31 * *", *SHORT_FORMS,
]  # fmt: skip
BAD_CRON = [
    "", "soon", "@reboot", "* * * *", "0 0 * * * *", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8",
    "*/0 * * * *", "a * * * *", "5-1 * * * *", "0 0 30 2 *", "0 0 31 4,6 *", "1,,2 * * * *", "-1 * * * *", "1.5 * * * *",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD_CRON)
def test_what_is_taken_for_a_cron_expression_dagster_takes_too(text: str) -> None:
    assert cron_problem(text) is None
    assert is_valid_cron_string(" ".join(text.split()))


@pytest.mark.parametrize("text", BAD_CRON)
def test_what_is_no_cron_expression_is_an_error_in_its_place(text: str) -> None:
    start = "COPY t FROM 'x.csv' OPTIONS (schedule="
    with pytest.raises(InvalidOption) as caught:
        parse(f"{start}'{text}')")
    assert caught.value.column == len(start) + 1
    assert "schedule" in caught.value.message


def test_a_changed_file_has_the_page_load_the_location_again(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr("thano_assets.orchestration.schedules.reload_user_interface", loaded.append)
    with Session(daemon.workspace) as session:
        graph = Graph(session.catalog.entries())
    (sensor,) = schedules_module.file_marks(graph, daemon.workspace)
    cursor: str | None = None

    def look() -> str:
        nonlocal cursor
        with dg.build_sensor_context(daemon.instance, cursor=cursor) as context:
            data = sensor.evaluate_tick(context)
        cursor = data.cursor
        assert data.run_requests is None or not data.run_requests
        return str(data.skip_message)

    assert look() == "No file has changed."
    assert look() == "No file has changed."
    write_rows(daemon.workspace, "in/two.jsonl", [{"text": "b", "n": 2}])
    assert look() == "Changed: in/*.jsonl. The page marks what reads them."
    assert look() == "No file has changed."
    for file in (daemon.workspace.data / "in").iterdir():
        file.unlink()
    assert look().startswith("Changed: ")
    assert loaded == [daemon.workspace] * 2
    assert schedules_module.file_marks(Graph([]), daemon.workspace) == []
