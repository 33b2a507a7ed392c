"""owner, tags, group, fresh_within and retries: what Dagster shows of a statement's assets, and does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from tests.orchestration.conftest import run_as_daemon
from tests.session.conftest import write_rows
from thano_assets.assets.kinds import KINDS
from thano_assets.assets.tables import tables
from thano_assets.errors import BaseModelUnavailable, DataFileError, InvalidOption
from thano_assets.graph import Graph, NodeKind
from thano_assets.orchestration import alerts, factory
from thano_assets.orchestration.due import due
from thano_assets.planning import plan
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session
from thano_assets.sql import parse
from thano_assets.sql.options import duration

COPY = """
COPY 영화 OPTIONS (if_exists='replace', owner=['team:리뷰', 'kim@example.com'], tags=['pii', 'tier=gold'],
    group='reviews', fresh_within='6 hours', retries=2) FROM 'rows.jsonl'
"""


def _graph(workspace: Workspace) -> Graph:
    with Session(workspace) as session:
        return Graph(session.catalog.entries())


def _later(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    """Let plans think that so many hours have passed."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=hours)

    monkeypatch.setattr(plan, "datetime", Later)


@pytest.fixture
def copied(workspace: Workspace) -> Workspace:
    write_rows(workspace, "rows.jsonl", [{"n": 1}])
    with Session(workspace) as session:
        session.execute(COPY)
        session.execute("CREATE TABLE plain AS SELECT * FROM 영화")
    return workspace


def test_dagster_shows_them(copied: Workspace) -> None:
    graph = _graph(copied)
    specs = {
        tuple(spec.key.path): spec
        for made in factory.build_assets(graph.nodes.values(), {})
        if isinstance(made, dg.AssetsDefinition)
        for spec in made.specs
    }
    for kind in ("raw", "tables"):
        spec = specs[kind, "영화"]
        assert list(spec.owners) == ["team:리뷰", "kim@example.com"]
        assert {name: spec.tags[name] for name in ("pii", "tier")} == {"pii": "", "tier": "gold"}
        assert spec.group_name == "reviews"
        assert spec.metadata["retries"] == 2
    policy = specs["tables", "영화"].freshness_policy
    assert isinstance(policy, dg.FreshnessPolicy)
    assert policy.fail_window.to_timedelta() == timedelta(hours=6)  # type: ignore[attr-defined]
    assert specs["raw", "영화"].freshness_policy is None  # the file is as old as it is
    plain = specs["tables", "plain"]
    assert (plain.group_name, list(plain.owners)) == ("tables", [])


def test_they_are_not_what_the_statement_makes(copied: Workspace) -> None:
    changed = COPY.replace("kim@", "lee@").replace("retries=2", "retries=3")
    with Session(copied) as session:
        planned = session.plan(changed)
        assert {row["action"] for row in planned.arrow().to_pylist()} == {"skip"}
        list(session.run(changed))
    assert _graph(copied).nodes["tables", "영화"].entry.option("owner") == ("team:리뷰", "lee@example.com")


def test_a_model_keeps_them_when_it_is_built_again(small_workspace: Workspace) -> None:
    write_rows(small_workspace, "rows.jsonl", [{"text": "ab"[n % 2], "label": n % 2} for n in range(20)])
    build = (
        "BUILD MODEL m USING ElectraEn OPTIONS (overwrite=True, epochs=1, baseline=False, eval_fraction=0{}) "
        "AS SELECT * FROM rows"
    )
    with Session(small_workspace) as session:
        session.execute("COPY rows FROM 'rows.jsonl'")
        session.execute(build.format(", owner='kim@example.com', retries=1"))
        session.execute(build.format(", retries=4"))
    entry = _graph(small_workspace).nodes["models", "m"].entry
    assert entry.option("owner") == ("kim@example.com",)
    assert entry.option("retries") == 4


def test_an_asset_that_is_too_old_is_made_again(copied: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ("tables", "plain")
    instance = dg.DagsterInstance.from_config(str(copied.dagster_home))
    assert not any(one.made for one in due(copied, [key], instance))
    _later(monkeypatch, hours=7)
    found = {one.node.key: one.reason for one in due(copied, [key], instance) if one.made}
    assert list(found) == [("tables", "영화")]  # the rows of plain are those of the table, whatever its age
    assert found["tables", "영화"].endswith("UTC, and fresh_within is '6 hours'")


def test_one_that_is_too_old_is_told_of(copied: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = dg.DagsterInstance.from_config(str(copied.dagster_home))
    nodes = [_graph(copied).nodes["tables", "영화"]]
    assert alerts.overdue(instance, nodes) == {}
    _later(monkeypatch, hours=7)
    ((name, (_, sentence)),) = alerts.overdue(instance, nodes).items()
    assert name == "tables/영화"
    assert sentence.startswith(f"tables/영화 is overdue: it was made {datetime.now(UTC):%Y-}")


@pytest.mark.parametrize(
    ("error", "calls", "succeeds"),
    [
        (BaseModelUnavailable("The hub does not answer."), 3, True),
        (MemoryError("no memory"), 3, True),
        (DataFileError("'rows.jsonl' cannot be read."), 1, False),
    ],
)
def test_what_may_pass_is_tried_again(
    copied: Workspace, monkeypatch: pytest.MonkeyPatch, error: Exception, calls: int, succeeds: bool
) -> None:
    asked = []
    monkeypatch.setattr(factory, "_RETRY_SECONDS", 0.01)
    real = tables.materialize

    def failing(node: Any, runtime: Any) -> Any:
        asked.append(node.key)
        if len(asked) < 3:
            raise error
        return real(node, runtime)

    monkeypatch.setitem(KINDS, NodeKind.TABLE, replace(KINDS[NodeKind.TABLE], materialize=failing))  # type: ignore[arg-type]
    instance = dg.DagsterInstance.from_config(str(copied.dagster_home))
    run = run_as_daemon(copied, instance, "raw/영화", "tables/영화")
    assert len(asked) == calls
    assert (run.status is dg.DagsterRunStatus.SUCCESS) is succeeds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30 minutes", 0.5), ("1 hour", 1), (" 2  days ", 48), ("1week", 168)],
)
def test_times(text: str, expected: float) -> None:
    (statement,) = parse(f"COPY t OPTIONS (fresh_within='{text}') FROM 'a.csv'")
    assert duration(statement.options["fresh_within"]) == timedelta(hours=expected)


@pytest.mark.parametrize(
    "option",
    [
        "owner='kim'",
        "owner=['kim@example.com', '']",
        "owner='team:'",
        "tags=['has space']",
        "tags='리뷰'",
        "tags=''",
        "group='two words'",
        "group='a//b'",
        "fresh_within='soon'",
        "fresh_within='0 days'",
        "fresh_within=''",
        "retries=-1",
        "retries=True",
    ],
)
def test_what_dagster_would_refuse_is_an_error_of_the_statement(option: str) -> None:
    name, _, _ = option.partition("=")
    with pytest.raises(InvalidOption, match=f"Option {name} of COPY was given") as caught:
        parse(f"COPY t OPTIONS ({option}) FROM 'a.csv'")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Allowed is ")
