"""Queries that pick rows and columns of one table: which they are, and that their rows come out the same."""

from __future__ import annotations

import duckdb
import pytest

from thano_assets.sql.rowwise import ROW, rowwise

PLAIN = {
    "SELECT * FROM t": ("t", "v"),
    "FROM t": ("t", "v"),
    "TABLE t": ("t", "v"),
    "FROM (FROM t)": ("t", "v"),
    "SELECT a, v FROM t AS x WHERE x.a > 2": ("t", "v"),
    "SELECT t.v, a AS b FROM t WHERE b <> 4": ("t", "v"),
    "SELECT b AS v FROM t": ("t", "b"),
    "SELECT * EXCLUDE (a) FROM T WHERE a IN (SELECT a FROM t WHERE v > 20)": ("T", "v"),
    "SELECT v, * FROM t": ("t", None),
}
OTHER = [
    "SELECT * FROM t ORDER BY a",
    "SELECT * FROM t LIMIT 2",
    "SELECT DISTINCT a FROM t",
    "SELECT a + 1 AS a FROM t",
    "SELECT count(*) FROM t",
    "SELECT a FROM t GROUP BY a",
    "SELECT rowid, * FROM t",
    "SELECT * REPLACE (a + 1 AS a) FROM t",
    "SELECT * FROM t USING SAMPLE 2 ROWS",
    "SELECT * FROM t TABLESAMPLE 50%",
    "SELECT * FROM t, t AS u",
    "SELECT * FROM main.t",
    "SELECT * FROM (SELECT a FROM t)",
    "SELECT * FROM (FROM t LIMIT 1)",
    "SELECT * FROM t QUALIFY row_number() OVER () < 2",
    "WITH t AS (SELECT 1 AS a) SELECT * FROM t",
    "SELECT * FROM t UNION ALL SELECT * FROM t",
    "FROM range(3)",
    "VALUES (1)",
    "not a query",
]


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    found = duckdb.connect()
    found.execute("CREATE TABLE t AS SELECT i AS a, 10 * i AS v, -i AS b FROM range(6) r(i)")
    return found


@pytest.mark.parametrize("sql", PLAIN)
def test_the_rows_told_by_number_are_the_query(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    query = rowwise(sql)
    assert query is not None
    assert (query.table, query.column("v")) == PLAIN[sql]
    assert query.filtered == ("WHERE" in sql)
    connection.execute(f"CREATE TABLE numbers AS SELECT {ROW} AS row FROM ({query.row_ids()})")
    found = connection.sql(f"SELECT * EXCLUDE ({ROW}) FROM ({query.of_rows('numbers')}) ORDER BY {ROW}")
    assert found.fetchall() == connection.sql(sql).fetchall()
    assert found.columns == connection.sql(f"FROM ({sql})").columns


@pytest.mark.parametrize("sql", OTHER)
def test_a_query_that_does_more_is_none(sql: str) -> None:
    assert rowwise(sql) is None
