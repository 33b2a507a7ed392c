"""Checks: every EXPECT is a blocking check of its table, in runs of a session and of the Dagster UI."""

from __future__ import annotations

import dagster as dg
import pytest

from tests.orchestration.test_definitions import materialize
from tests.session.conftest import write_rows
from thano_assets.assets.runtime import Runtime
from thano_assets.assets.tables import checks
from thano_assets.catalog import Catalog, entry_of
from thano_assets.errors import ExpectationFailed
from thano_assets.graph import Graph
from thano_assets.orchestration.factory import build_definitions
from thano_assets.orchestration.resources import resources_for
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session
from thano_assets.sql import parse

GOOD, BAD = {"text": "a", "별점": 3}, {"text": "b", "별점": 8}


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    """Two tables, one of them with a name that no Dagster name may have, and an expectation that holds."""
    write_rows(workspace, "rows.jsonl", [GOOD])
    with Session(workspace) as session:
        session.execute('COPY "내 영화" FROM \'rows.jsonl\'; CREATE TABLE plain AS SELECT * FROM "내 영화"')
        session.execute('EXPECT 별점 <= 5 ON "내 영화"')
    return workspace


MOVIES = [("raw", "내 영화"), ("tables", "내 영화")]


def evaluations(result: dg.ExecuteInProcessResult) -> list[tuple[str, bool]]:
    found = result.get_asset_check_evaluations()
    return [(evaluation.check_name, evaluation.passed) for evaluation in found]


def made(result: dg.ExecuteInProcessResult) -> list[str]:
    return [
        key.to_user_string()
        for event in result.all_events
        if event.is_step_materialization and (key := event.asset_key) is not None
    ]


def test_each_expectation_is_a_blocking_check_with_the_condition_in_its_description(
    filled: Workspace,
) -> None:
    graph = Graph(Catalog(filled.statements).entries())
    definitions = build_definitions(graph, resources_for(filled))
    (key,) = definitions.resolve_asset_graph().asset_check_keys
    assert key.asset_key.path == ["tables", "내 영화"]
    assert key.name.startswith("별점_le_5_")
    (spec,) = [spec for asset in definitions.assets or () for spec in getattr(asset, "check_specs", ())]
    assert spec.blocking
    assert "별점 <= 5" in spec.description


def test_rows_that_break_it_stop_what_hangs_on_the_table(filled: Workspace) -> None:
    write_rows(filled, "rows.jsonl", [GOOD, BAD])
    result = materialize(filled, *MOVIES, ("tables", "plain"))
    assert not result.success
    assert [passed for _, passed in evaluations(result)] == [False]
    assert made(result) == ["raw/내 영화", "tables/내 영화"]
    (evaluation,) = result.get_asset_check_evaluations()
    assert "| b | 8 |" in str(evaluation.metadata["offending rows"].value)
    assert evaluation.description == "1 of 2 rows of 내 영화 breaks EXPECT 별점 <= 5."


def test_rows_that_keep_it_let_the_run_go_on(filled: Workspace) -> None:
    result = materialize(filled, *MOVIES, ("tables", "plain"))
    assert result.success
    assert [passed for _, passed in evaluations(result)] == [True]
    assert made(result)[-1] == "tables/plain"


def test_nothing_is_made_from_a_table_whose_rows_break_it_now(filled: Workspace) -> None:
    write_rows(filled, "rows.jsonl", [GOOD, BAD])
    materialize(filled, *MOVIES)
    result = materialize(filled, ("tables", "plain"))
    assert not result.success
    assert made(result) == []
    with Session(filled) as session:
        assert session.execute("SELECT count(*) AS n FROM plain").arrow().to_pylist() == [{"n": 1}]
        with pytest.raises(ExpectationFailed) as caught:
            session.execute('CREATE TABLE more AS SELECT * FROM "내 영화"')
    assert caught.value.text is not None
    assert caught.value.text.startswith('EXPECT 별점 <= 5 ON "내 영화"')
    assert (caught.value.line, caught.value.column) == (1, 8)
    assert "DROP EXPECT 별점 <= 5 ON 내 영화" in str(caught.value)


def test_a_table_that_breaks_it_is_there_with_a_warning(filled: Workspace) -> None:
    write_rows(filled, "rows.jsonl", [GOOD, BAD])
    with Session(filled) as session:
        result = session.execute("COPY \"내 영화\" FROM 'rows.jsonl' OPTIONS (overwrite=True)")
        assert result.warnings == ["1 of 2 rows of 내 영화 breaks EXPECT 별점 <= 5."]
        assert session.execute('SELECT count(*) AS n FROM "내 영화"').arrow().to_pylist() == [{"n": 2}]


def test_a_table_made_in_the_same_run_is_judged_by_its_own_check(filled: Workspace) -> None:
    write_rows(filled, "rows.jsonl", [BAD])
    assert not materialize(filled, *MOVIES).success
    write_rows(filled, "rows.jsonl", [GOOD])
    assert materialize(filled, *MOVIES, ("tables", "plain")).success


def test_a_condition_that_can_no_longer_be_asked_does_not_hold(filled: Workspace) -> None:
    write_rows(filled, "rows.jsonl", [{"text": "a", "stars": 3}])
    result = materialize(filled, *MOVIES)
    assert not result.success
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.description == "EXPECT 별점 <= 5 cannot be asked: There is no column 별점 here."


def test_expectations_of_predictions_and_of_tables_in_a_plan_are_told(filled: Workspace) -> None:
    runtime = Runtime.of(filled)
    assert checks.broken(["plain", "내 영화", "nowhere"], runtime) == []
    write_rows(filled, "rows.jsonl", [BAD])
    materialize(filled, *MOVIES)
    ((entry, outcome),) = checks.broken(["plain", "내 영화"], runtime)
    assert entry.name.startswith("내 영화_")
    assert outcome.facts == {"rows": 1, "failing rows": 1}


@pytest.mark.parametrize(
    ("condition", "stem"),
    [
        ("rating >= 1 AND rating <= 5", "rating_ge_1_and_rating_le_5"),
        ("label IN ('a', 'b')", "label_in_a_b"),
        ("text <> ''", "text_ne"),
        ("별점 = 3", "별점_eq_3"),
    ],
)
def test_names_of_checks_are_readable_and_their_own(condition: str, stem: str) -> None:
    entry = entry_of(parse(f"EXPECT {condition} ON t")[0])
    assert entry is not None
    assert checks.check_name(entry) == f"{stem}_{entry.name.removeprefix('t_')}"


def test_two_long_conditions_have_two_names() -> None:
    entries = [entry_of(parse(f"EXPECT {'length(text) > 0 AND ' * 20} n > {n} ON t")[0]) for n in (1, 2)]
    names = {checks.check_name(entry) for entry in entries if entry is not None}
    assert len(names) == 2
    assert all(len(name) < 80 for name in names)


def test_a_model_that_must_prove_itself_has_a_check_that_warns_and_others_have_none(
    workspace: Workspace,
) -> None:
    text = """
        BUILD MODEL plain USING ElectraEn AS SELECT * FROM t;
        BUILD MODEL judged USING ElectraEn OPTIONS (promote_if='f1_macro >= champion') AS SELECT * FROM t;
        CREATE TABLE p AS PREDICT USING judged VERSION 3 AS SELECT * FROM t
    """
    entries = [entry for statement in parse(text) if (entry := entry_of(statement)) is not None]
    definitions = build_definitions(Graph(entries), resources_for(workspace))
    specs = [spec for asset in definitions.assets or () for spec in getattr(asset, "check_specs", ())]
    assert [(spec.asset_key.path[-1], spec.name, spec.blocking) for spec in specs] == [
        ("judged", "promotion", False)
    ]
    # The version that a statement pins is shown, and never made.
    graph = definitions.resolve_asset_graph()
    pinned = graph.get(dg.AssetKey(["model_versions", "judged VERSION 3"]))
    assert pinned.is_external
    assert pinned.kinds == {"mlflow"}
    assert pinned.key in graph.get(dg.AssetKey(["predictions", "p"])).parent_keys


def test_an_asset_is_made_without_its_checks_and_a_check_is_asked_alone(workspace: Workspace) -> None:
    write_rows(workspace, "rows.jsonl", [{"n": 1}])
    with Session(workspace) as session:
        session.execute("COPY t FROM 'rows.jsonl'; EXPECT n < 5 ON t; CREATE TABLE u AS SELECT * FROM t")
        graph = Graph(session.catalog.entries())
    instance = dg.DagsterInstance.from_config(str(workspace.dagster_home))
    definitions = build_definitions(graph, resources_for(workspace))
    keys = {name: dg.AssetKey(name.split("/")) for name in ("raw/t", "tables/t", "tables/u")}
    ((check,),) = [
        [one.key for one in made.check_specs]
        for made in definitions.assets or ()
        if isinstance(made, dg.AssetsDefinition) and made.check_specs
    ]

    def launch(assets: list[str], checks: set[dg.AssetCheckKey]) -> dg.ExecuteInProcessResult:
        job = definitions.resolve_implicit_global_asset_job_def()
        wanted = [keys[name] for name in assets]
        subset = job.get_subset(asset_selection=set(wanted), asset_check_selection=checks)
        return subset.execute_in_process(instance=instance, raise_on_error=False)

    def verdict() -> bool:
        (record,) = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
        assert record.event is not None
        assert record.event.dagster_event is not None
        return record.event.dagster_event.asset_check_evaluation_data.passed

    assert verdict()
    write_rows(workspace, "rows.jsonl", [{"n": 9}])
    without = launch(["raw/t", "tables/t"], set())
    assert without.success
    assert without.get_asset_check_evaluations() == []
    assert verdict()  # it was not asked
    alone = launch([], {check})
    assert not alone.success  # the check is blocking
    assert alone.get_asset_materialization_events() == []
    assert not verdict()
    behind = launch(["raw/t", "tables/t", "tables/u"], set())
    assert not behind.success  # what reads the table asks for itself
    write_rows(workspace, "rows.jsonl", [{"n": 2}])
    assert launch(["raw/t", "tables/t"], set()).success
    assert launch([], {check}).success
    assert verdict()


def test_the_verdict_on_the_newest_version_is_told_again(small_workspace: Workspace) -> None:
    write_rows(
        small_workspace, "rows.jsonl", [{"text": "ab"[n % 2] + "c" * n, "label": n % 2} for n in range(20)]
    )
    with Session(small_workspace) as session:
        session.execute("COPY rows FROM 'rows.jsonl'")
        session.execute(
            "BUILD MODEL m USING ElectraEn OPTIONS (epochs=1, baseline=False, eval_fraction=0.5, "
            "promote_if='loss <= 0') AS SELECT * FROM rows"
        )
        graph = Graph(session.catalog.entries())
    instance = dg.DagsterInstance.from_config(str(small_workspace.dagster_home))
    job = build_definitions(graph, resources_for(small_workspace)).resolve_implicit_global_asset_job_def()
    check = dg.AssetCheckKey(dg.AssetKey(["models", "m"]), "promotion")
    result = job.get_subset(asset_selection=set(), asset_check_selection={check}).execute_in_process(
        instance=instance
    )
    (found,) = result.get_asset_check_evaluations()
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert str(found.description).startswith("Version 1 is not promoted: ")
    assert result.get_asset_materialization_events() == []
