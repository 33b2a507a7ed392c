"""The code location: the whole catalog as assets, loaded fast, and each asset can be made again from it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from tests.session.conftest import write_rows
from thano_assets.assets.kinds import KINDS
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.graph import Graph, Node, NodeKind
from thano_assets.orchestration.factory import asset_key, build_definitions, op_name
from thano_assets.orchestration.records import read_records
from thano_assets.orchestration.resources import resources_for
from thano_assets.planning.observation import observed
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

ROOT = Path(__file__).parents[2]


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    rows: list[dict[str, object]] = [{"text": f"film {n}", "label": n % 2} for n in range(10)]
    write_rows(workspace, "rows.jsonl", rows)
    with Session(workspace) as session:
        session.execute("COPY 영화 FROM 'rows.jsonl'; CREATE TABLE plain AS SELECT * FROM 영화")
    return workspace


def definitions(workspace: Workspace) -> dg.Definitions:
    graph = observed(Graph(Session(workspace).catalog.entries()), workspace)
    return build_definitions(graph, resources_for(workspace))


def materialize(workspace: Workspace, *keys: tuple[str, str]) -> dg.ExecuteInProcessResult:
    """Materialize by hand, as a run worker of the Dagster UI does: without a session."""
    instance = dg.DagsterInstance.from_config(str(workspace.dagster_home))
    selection = [asset_key(key) for key in keys]
    job = definitions(workspace).resolve_implicit_global_asset_job_def()
    return job.get_subset(asset_selection=set(selection)).execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def test_every_asset_of_the_catalog_is_there_with_its_statement(filled: Workspace) -> None:
    specs = {spec.key.to_user_string(): spec for spec in definitions(filled).resolve_all_asset_specs()}
    assert set(specs) == {"raw/영화", "tables/영화", "tables/plain"}
    spec = specs["tables/plain"]
    assert spec.group_name == "tables"
    assert {"duckdb", "table"} <= spec.kinds
    assert "CREATE TABLE plain AS SELECT * FROM 영화" in (spec.description or "")
    assert [dep.asset_key.to_user_string() for dep in spec.deps] == ["tables/영화"]
    assert "json" in specs["raw/영화"].kinds


def test_an_asset_can_be_made_again_by_hand_and_says_what_it_is(filled: Workspace) -> None:
    write_rows(filled, "rows.jsonl", [{"text": "new", "label": 1}])
    result = materialize(filled, ("raw", "영화"), ("tables", "영화"), ("tables", "plain"))
    assert result.success
    instance = dg.DagsterInstance.from_config(str(filled.dagster_home))
    event = instance.get_latest_materialization_event(asset_key(("tables", "plain")))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert metadata["dagster/row_count"].value == 1
    schema = metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert [(column.name, column.type) for column in schema.columns] == [
        ("text", "VARCHAR"),
        ("label", "BIGINT"),
    ]
    assert "| new | 1 |" in str(metadata["preview"].value)


def test_what_later_plans_compare_with_is_kept_with_the_materialization(filled: Workspace) -> None:
    instance = dg.DagsterInstance.from_config(str(filled.dagster_home))
    record = read_records(instance, [("raw", "영화")])["raw", "영화"]
    assert record.statement == "COPY 영화 FROM 'rows.jsonl'\n;\n"
    assert list(record.details["files"]) == ["rows.jsonl"]
    definitions_now = definitions(filled).resolve_all_asset_specs()
    (spec,) = [spec for spec in definitions_now if spec.key == asset_key(("raw", "영화"))]
    assert spec.code_version == record.code_version


def test_a_changed_file_is_marked_when_the_location_is_loaded_again(filled: Workspace) -> None:
    def code_versions() -> dict[str, str | None]:
        specs = definitions(filled).resolve_all_asset_specs()
        return {spec.key.to_user_string(): spec.code_version for spec in specs}

    before = code_versions()
    write_rows(filled, "rows.jsonl", [{"text": "new", "label": 1}])
    after = code_versions()
    assert {key for key in after if after[key] != before[key]} == {"raw/영화"}


@pytest.mark.parametrize("tags", [{}, {"thano/incremental": "true"}, {"thano/incremental": "false"}])
def test_the_tag_of_a_run_tells_its_assets_that_it_is_incremental(
    filled: Workspace, tags: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    kind = KINDS[NodeKind.TABLE]

    def spy(node: Node, runtime: Runtime) -> Outcome:
        seen.append(runtime.incremental)
        return kind.materialize(node, runtime)

    monkeypatch.setitem(KINDS, NodeKind.TABLE, replace(kind, materialize=spy))  # type: ignore[arg-type]
    instance = dg.DagsterInstance.from_config(str(filled.dagster_home))
    job = definitions(filled).resolve_implicit_global_asset_job_def()
    job.get_subset(asset_selection={asset_key(("tables", "plain"))}).execute_in_process(
        instance=instance,
        tags=tags,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    assert seen == [tags.get("thano/incremental") == "true"]


def test_data_versions_are_of_content(filled: Workspace) -> None:
    instance = dg.DagsterInstance.from_config(str(filled.dagster_home))

    def data_version() -> object:
        event = instance.get_latest_materialization_event(asset_key(("tables", "영화")))
        assert event is not None
        assert event.asset_materialization is not None
        return (event.asset_materialization.tags or {})["dagster/data_version"]

    first = data_version()
    file = filled.data / "rows.jsonl"
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    materialize(filled, ("raw", "영화"), ("tables", "영화"))
    assert data_version() == first
    write_rows(filled, "rows.jsonl", [{"text": "other", "label": 1}])
    materialize(filled, ("raw", "영화"), ("tables", "영화"))
    assert data_version() != first


def test_an_error_reaches_the_run_and_nothing_is_replaced(filled: Workspace) -> None:
    (filled.data / "rows.jsonl").unlink()
    assert not materialize(filled, ("raw", "영화"), ("tables", "영화")).success
    with Session(filled) as session:
        assert session.execute("SELECT count(*) AS n FROM 영화").arrow().to_pylist() == [{"n": 10}]


def test_a_run_of_a_session_belongs_to_the_code_location_and_can_be_run_again(filled: Workspace) -> None:
    instance = dg.DagsterInstance.from_config(str(filled.dagster_home))
    run = instance.get_runs(limit=1)[0]
    assert run.is_success
    origin = run.remote_job_origin
    assert origin is not None
    assert origin.location_name == "thano_assets"
    assert run.job_name == "__ASSET_JOB"
    assert run.tags["statement"].startswith("CREATE TABLE plain AS SELECT")
    assert run.asset_selection == {asset_key(("tables", "plain"))}


def test_a_broken_file_does_not_take_the_others_down(filled: Workspace) -> None:
    (filled.statements / "tables" / "bad.sql").write_text("CREATE TABLE bad AS SELEC 1")
    specs = {spec.key.to_user_string(): spec for spec in definitions(filled).resolve_all_asset_specs()}
    assert "tables/plain" in specs
    assert "not a legal statement" in (specs["broken/bad"].description or "")


def test_names_of_steps_are_legal_and_distinct() -> None:
    names = [op_name(("tables", name)) for name in ("plain", "내 표", "내_표", "a b", "a_b", "a-b")]
    assert len(set(names)) == len(names)
    assert all(name.isascii() and name.replace("_", "").isalnum() for name in names)


def test_loading_the_location_imports_no_learning_library(filled: Workspace) -> None:
    code = (
        "import sys; from thano_assets.definitions import defs; defs().resolve_all_asset_specs();"
        "print(sorted({'torch', 'transformers', 'mlflow', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    environment = {**os.environ, "THANO_WORKSPACE": str(filled.root)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_shipped_workspace_file_is_valid(filled: Workspace) -> None:
    environment = {
        **os.environ,
        "THANO_WORKSPACE": str(filled.root),
        "DAGSTER_HOME": str(filled.dagster_home),
    }
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", str(ROOT / "workspace.yaml")],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validation successful" in done.stdout + done.stderr
