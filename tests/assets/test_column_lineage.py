"""Column lineage: right or missing, never wrong, and never an error."""

from __future__ import annotations

import dagster as dg
import duckdb
import pytest

from tests.session.conftest import write_rows
from thano_assets.assets.tables.column_lineage import ColumnLineage, of_query, with_predictions
from thano_assets.graph.build import Key
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

SCHEMAS = {
    "Reviews": ["id", "Review", "sentiment", "score"],
    "people": ["id", "name"],
    "리뷰": ["본문", "별점"],
}


def key(name: str) -> Key | None:
    found = {spelt.casefold(): spelt for spelt in SCHEMAS}
    return ("tables", found[name.casefold()]) if name.casefold() in found else None


def traced(query: str) -> dict[str, str]:
    """The lineage in short, with the columns that DuckDB names."""
    with duckdb.connect() as connection:
        for table, columns in SCHEMAS.items():
            listed = ", ".join(f'"{column}" VARCHAR' for column in columns)
            connection.execute(f'CREATE TABLE "{table}" ({listed})')
        connection.execute(query)
        columns = [column[0] for column in connection.description or ()]
    return short(of_query(query, columns, SCHEMAS, key))


def short(lineage: ColumnLineage) -> dict[str, str]:
    return {
        column: " ".join(f"{source[1]}.{name}" for source, name in sorted(sources))
        for column, sources in lineage.items()
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT Review AS text, score || '' AS s FROM reviews", {"text": "Reviews.Review", "s": "Reviews.score"}),
        ("FROM people", {"id": "people.id", "name": "people.name"}),
        ("SELECT * EXCLUDE (id), upper(name) AS n FROM people", {"name": "people.name", "n": "people.name"}),
        ("SELECT p.name, r.review FROM reviews r JOIN people p USING (id)", {"name": "people.name", "Review": "Reviews.Review"}),
        ("WITH a AS (SELECT id AS i, score FROM reviews) SELECT i, max(score) AS m FROM a GROUP BY ALL", {"i": "Reviews.id", "m": "Reviews.score"}),
        ("SELECT 본문 AS t, 별점 FROM 리뷰 WHERE 별점 <> '1'", {"t": "리뷰.본문", "별점": "리뷰.별점"}),
        ("SELECT review AS x FROM reviews UNION ALL SELECT name FROM people", {"x": "Reviews.Review people.name"}),
        ("SELECT score AS a, a || 'x' AS b FROM reviews", {"a": "Reviews.score", "b": "Reviews.score"}),
        ("SELECT id, count(*) AS n FROM people GROUP BY id", {"id": "people.id"}),
        ("SELECT (SELECT max(name) FROM people p WHERE p.id = r.id) AS who FROM reviews r", {"who": "people.name"}),
    ],
)  # fmt: skip
def test_columns_are_followed_to_the_tables_they_come_from(query: str, expected: dict[str, str]) -> None:
    assert traced(query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "SELECT COLUMNS('s.*') FROM reviews",
        "SELECT id, name FROM people UNION ALL BY NAME SELECT review AS name, id FROM reviews",
        "SELECT id AS a, name AS a FROM people",
        "SUMMARIZE people",
        "SELECT p FROM people p",
        "SELECT 1 AS one",
        "SELECT " + ", ".join(f"id AS c{number}" for number in range(101)) + " FROM people",
    ],
)
def test_where_it_cannot_tell_there_is_none(query: str) -> None:
    assert traced(query) == {}


def test_a_query_that_cannot_be_read_is_no_error() -> None:
    assert of_query("SELECT FROM WHERE ((", ["a"], SCHEMAS, key) == {}
    assert of_query("SELECT nothing FROM people", ["nothing"], SCHEMAS, key) == {}
    assert of_query("SELECT name FROM people", ["name"], SCHEMAS, lambda _: None) == {}


def test_predictions_come_from_the_text() -> None:
    query: ColumnLineage = {"id": [(("tables", "t"), "id")], "Text": [(("tables", "t"), "review")]}
    found = short(with_predictions(query, ["text"], ["predicted", "probability"]))
    assert found == {"id": "t.id", "Text": "t.review", "predicted": "t.review", "probability": "t.review"}
    assert with_predictions({}, ["text"], ["predicted"]) == {}


def test_it_is_kept_with_the_materialization(workspace: Workspace) -> None:
    write_rows(workspace, "rows.jsonl", [{"본문": "a", "n": 1}])
    with Session(workspace) as session:
        session.execute(
            "COPY 리뷰 FROM 'rows.jsonl'; CREATE TABLE t AS SELECT upper(본문) AS text, n FROM 리뷰"
        )
    instance = dg.DagsterInstance.from_config(str(workspace.dagster_home))
    event = instance.get_latest_materialization_event(dg.AssetKey(["tables", "t"]))
    assert event is not None
    assert event.asset_materialization is not None
    lineage = event.asset_materialization.metadata["dagster/column_lineage"].value
    assert isinstance(lineage, dg.TableColumnLineage)
    source = dg.AssetKey(["tables", "리뷰"])
    assert lineage.deps_by_column == {
        "text": [dg.TableColumnDep(source, "본문")],
        "n": [dg.TableColumnDep(source, "n")],
    }
    raw = instance.get_latest_materialization_event(dg.AssetKey(["tables", "리뷰"]))
    assert raw is not None
    assert raw.asset_materialization is not None
    assert "dagster/column_lineage" not in raw.asset_materialization.metadata
