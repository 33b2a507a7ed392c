"""What is launched from Dagster's page: the form of a model, the words in the log, and the jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.session.conftest import copied, made_once, write_rows
from thano_assets.graph import Graph
from thano_assets.interfaces.dagster_jobs import jobs
from thano_assets.orchestration import run_tags
from thano_assets.orchestration.factory import build_definitions, op_name
from thano_assets.orchestration.resources import resources_for
from thano_assets.planning.kept_options import with_options
from thano_assets.planning.observation import observed
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session
from thano_assets.sql import parse
from thano_assets.sql.statements import BuildModel

BUILD = """
BUILD MODEL 분류 USING ElectraEn
OPTIONS (epochs=1, batch_size=4, baseline=False, eval_fraction=0.5, overwrite=True) -- a note
AS SELECT review AS text, label FROM rows
"""


class Page:
    """Launches as Dagster's page does: from the definitions of the catalog as it is now."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.instance = dg.DagsterInstance.from_config(str(workspace.dagster_home))

    @property
    def definitions(self) -> dg.Definitions:
        with Session(self.workspace) as session:
            graph = observed(Graph(session.catalog.entries()), self.workspace)
        return build_definitions(graph, resources_for(self.workspace), jobs=jobs(self.workspace))

    def materialize(self, *assets: str, config: dict[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        keys = [dg.AssetKey(asset.split("/")) for asset in assets]
        job = self.definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(keys))
        ops = {op_name(tuple(assets[-1].split("/"))): {"config": config}} if config else {}  # type: ignore[arg-type]
        return job.execute_in_process(
            instance=self.instance, asset_selection=keys, raise_on_error=False, run_config={"ops": ops}
        )

    def job(self, name: str, op: str, **config: Any) -> dg.ExecuteInProcessResult:
        found = next(job for job in self.definitions.jobs or () if job.name == name)
        assert isinstance(found, dg.JobDefinition)
        run_config = {"ops": {op: {"config": config}}} if config else {}
        return found.execute_in_process(instance=self.instance, raise_on_error=False, run_config=run_config)

    def log(self, run_id: str) -> str:
        return "\n".join(entry.user_message for entry in self.instance.all_logs(run_id))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path, classifier: Path) -> Path:
    """A workspace with a table, a model and a prediction; made once, and only copied."""
    root = tmp_path_factory.mktemp("launches") / "workspace"
    workspace = made_once(root, mlflow_database, classifier)
    rows = [{"review": f"{'ab'[n % 2]} {'c' * n}", "label": n % 2} for n in range(20)]
    write_rows(workspace, "rows.jsonl", rows)
    with Session(workspace) as session:
        session.execute("COPY rows FROM 'rows.jsonl'")
        session.execute(BUILD)
        session.execute("CREATE TABLE answers AS PREDICT USING 분류 AS SELECT review AS text FROM rows")
    return root


@pytest.fixture
def page(prepared: Path, tmp_path: Path) -> Page:
    return Page(copied(prepared, tmp_path / "workspace"))


def versions(page: Page) -> list[dict[str, Any]]:
    with Session(page.workspace) as session:
        table = session.execute("SHOW VERSIONS OF MODEL 분류").table
    assert table is not None
    return sorted(table.to_pylist(), key=lambda row: row["version"])


def test_the_form_has_typed_fields_of_what_the_statement_takes(page: Page) -> None:
    job = page.definitions.resolve_implicit_global_asset_job_def()
    (name,) = [node.name for node in job.graph.node_defs if node.name.startswith("models__")]
    fields = job.graph.node_named(name).definition.config_field.config_type.fields  # type: ignore[union-attr]
    assert {one: field.config_type.given_name for one, field in fields.items()} == {
        "retrain": "Retrain",
        "epochs": "Int",
        "batch_size": "Int",
        "learning_rate": "Float",
        "seed": "Int",
    }
    assert not any(field.is_required for field in fields.values())


def test_settings_of_the_form_count_for_the_run(page: Page) -> None:
    result = page.materialize("models/분류", config={"epochs": 2, "seed": 7})
    assert result.success
    log = page.log(result.run_id)
    assert "With epochs 2 in place of 1. With seed 7 in place of 42." in log
    version = Session(page.workspace)._runtime.registry.resolve("분류")
    assert version is not None
    assert (version.version, version.params["epochs"], version.params["seed"]) == (2, "2", "7")
    statement = version.tags["thano.statement"]
    assert "epochs=2" in statement
    assert "seed=7" in statement
    with Session(page.workspace) as session:
        entry = session.catalog.model("분류")
    assert entry is not None
    assert entry.option("max_epochs") == 1  # the statement stays as it is


def test_a_setting_out_of_range_is_a_sentence_and_trains_nothing(page: Page) -> None:
    result = page.materialize("models/분류", config={"epochs": 0})
    assert not result.success
    run = page.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[run_tags.ERROR].startswith(
        "invalid-option: Option max_epochs of BUILD MODEL was given 0."
    )
    assert len(versions(page)) == 1


def test_retrain_if_changed_takes_the_version_that_is_there(page: Page) -> None:
    result = page.materialize("models/분류", config={"retrain": "if changed"})
    assert result.success
    assert len(versions(page)) == 1
    assert page.materialize("models/분류", config={"retrain": "always"}).success
    assert len(versions(page)) == 2


def test_the_log_says_why_in_the_words_of_the_plan(page: Page) -> None:
    asked = page.materialize("tables/rows")
    assert "tables/rows is made because this run asks for it; a plan finds it unchanged." in page.log(
        asked.run_id
    )
    write_rows(page.workspace, "rows.jsonl", [{"review": "a", "label": n % 2} for n in range(10)])
    changed = page.materialize("raw/rows", "tables/rows")
    assert "raw/rows is made (rebuild): rows.jsonl changed." in page.log(changed.run_id)
    assert "tables/rows is made (rebuild): 10 rows of rows.jsonl changed, 10 rows removed." in page.log(
        changed.run_id
    )


def test_everything_is_brought_up_to_date(page: Page) -> None:
    idle = page.job("bring_everything_up_to_date", "everything")
    assert idle.success
    assert "Nothing is out of date." in page.log(idle.run_id)
    assert page.instance.get_runs(dg.RunsFilter(tags={run_tags.PARENT: idle.run_id})) == []
    rows = [{"review": f"{'ab'[n % 2]} {'d' * n}", "label": n % 2} for n in range(24)]
    write_rows(page.workspace, "rows.jsonl", rows)
    result = page.job("bring_everything_up_to_date", "everything")
    assert result.success
    (run,) = page.instance.get_runs(dg.RunsFilter(tags={run_tags.PARENT: result.run_id}))
    assert {key.to_user_string() for key in run.asset_selection or ()} == {
        "raw/rows",
        "tables/rows",
        "training_sets/분류",
        "models/분류",
        "predictions/answers",
    }
    assert "rebuild models/분류: " in page.log(result.run_id)
    with Session(page.workspace) as session:
        assert not any(
            row["out_of_date"] for row in session.execute("SHOW LINEAGE answers").arrow().to_pylist()
        )


def test_what_fails_in_the_job_fails_the_job_with_its_sentence(page: Page) -> None:
    (page.workspace.data / "rows.jsonl").write_text('{"review": \n')
    result = page.job("bring_everything_up_to_date", "everything")
    assert not result.success
    run = page.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[run_tags.ERROR].startswith("data-file: 'rows.jsonl' cannot be read")


def test_promote_and_rebuild_from_the_page(page: Page) -> None:
    again = page.job("rebuild_model", "rebuild", model="분류", version=1)
    assert again.success
    assert [(row["version"], row["aliases"]) for row in versions(page)] == [(1, []), (2, ["champion"])]
    assert page.job("promote_model", "promote", model="분류", version=1).success
    assert [(row["version"], row["aliases"]) for row in versions(page)] == [(1, ["champion"]), (2, [])]
    verified = page.job("rebuild_model", "rebuild", model="분류", version=1, verify=True)
    assert verified.success
    assert len(versions(page)) == 2
    missing = page.job("promote_model", "promote", model="분류", version=9)
    assert not missing.success
    run = page.instance.get_run_by_id(missing.run_id)
    assert run is not None
    assert run.tags[run_tags.ERROR].startswith("unknown-model: ")


@pytest.mark.parametrize(
    ("options", "values", "expected"),
    [
        ("", {"seed": 7}, {"seed": 7}),
        ("OPTIONS ()", {"seed": 7}, {"seed": 7}),
        ("OPTIONS (epochs=3, text_col='a)b')", {"max_epochs": 5}, {"max_epochs": 5, "text_col": "a)b"}),
        (
            "OPTIONS (seed=1, learning_rate=0.1)",
            {"learning_rate": 2e-05, "seed": 3, "max_epochs": 1},
            {"learning_rate": 2e-05, "seed": 3, "max_epochs": 1},
        ),
    ],
)
def test_options_put_into_a_statement(options: str, values: dict[str, Any], expected: dict[str, Any]) -> None:
    (statement,) = parse(f"-- first\nBUILD MODEL m USING ElectraEn {options} /* seed */ AS SELECT 1 AS seed")
    assert isinstance(statement, BuildModel)
    changed = with_options(statement, values)
    assert dict(changed.options) == expected
    assert changed.query.text == statement.query.text  # type: ignore[union-attr]
