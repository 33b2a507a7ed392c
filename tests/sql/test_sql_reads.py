"""Which tables and files a query reads."""

from __future__ import annotations

import pytest

from thano_assets.errors import SyntaxProblem
from thano_assets.sql.reads import tables_read


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT 1", []),
        ("SELECT * FROM t", ["t"]),
        ("FROM t", ["t"]),
        ("TABLE t", ["t"]),
        ("DESCRIBE t", ["t"]),
        ("SHOW t", ["t"]),
        ("SHOW TABLES", []),
        ("SUMMARIZE SELECT * FROM t", ["t"]),
        ("EXPLAIN ANALYZE SELECT * FROM t", ["t"]),
        ("EXPLAIN (FORMAT json) FROM t", ["t"]),
        ("SELECT * FROM a, b JOIN c USING (x) LEFT JOIN d ON true", ["a", "b", "c", "d"]),
        ("SELECT * FROM a POSITIONAL JOIN b", ["a", "b"]),
        ("FROM a UNION FROM b EXCEPT SELECT * FROM c WHERE x IN (FROM d)", ["a", "b", "c", "d"]),
        (
            "SELECT (SELECT max(x) FROM a), EXISTS (FROM b) FROM c WHERE y > ALL (FROM d)",
            ["a", "b", "c", "d"],
        ),
        ("SELECT [x FOR x IN (SELECT list(y) FROM a)] FROM b ORDER BY (FROM c)", ["a", "b", "c"]),
        ("SELECT * FROM t AS u, LATERAL (SELECT * FROM v WHERE v.a = u.a)", ["t", "v"]),
        ("SELECT t.a FROM s AS t", ["s"]),
        ('SELECT * FROM "Weird; name", 한글', ["Weird; name", "한글"]),
        ("SELECT * FROM t, T", ["t", "T"]),
        ("SELECT * FROM main.t, wh.main.u, other.v", ["t", "u", "other.v"]),
        ("FROM information_schema.tables, duckdb_tables, pg_catalog.pg_class, sqlite_master", []),
        ("SELECT * FROM range(3), unnest([1]) u", []),
        # Names that WITH defines
        ("WITH a AS (FROM t) FROM a", ["t"]),
        ("WITH a AS (FROM t), b AS (FROM a) FROM b, A", ["t"]),
        ("WITH a AS (FROM b), b AS (FROM t) FROM a, b", ["b", "t"]),
        ("WITH t AS (SELECT * FROM t) SELECT * FROM t", ["t"]),
        ("WITH a AS MATERIALIZED (SELECT 1) FROM a, main.a", ["a"]),
        ("WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r, base) FROM r", ["base"]),
        ("SELECT * FROM (WITH a AS (FROM t) FROM a) x, a", ["t", "a"]),
        ("SELECT (WITH q AS (FROM t) FROM q), (FROM q)", ["t", "q"]),
        ("WITH a AS (SELECT 1) SELECT (WITH a AS (FROM t) FROM a), (FROM a)", ["t"]),
        ("WITH a AS (SELECT 1) (FROM a) UNION (WITH b AS (FROM a) FROM b, c)", ["c"]),
        ("WITH a AS (SELECT 1) SELECT x IN (SELECT y FROM a JOIN t USING (z)) FROM a", ["t"]),
        # PIVOT
        ("PIVOT t ON a", ["t"]),
        ("PIVOT t ON a, b || 'x', c IN ('q') USING sum(x) GROUP BY y", ["t"]),
        ("SELECT * FROM (PIVOT t ON a USING sum(b)) p JOIN u USING (z)", ["t", "u"]),
        ("WITH c AS (FROM k) PIVOT (c JOIN t ON c.x = t.x) ON a", ["k", "t"]),
        ("PIVOT t ON a IN (SELECT z FROM w WHERE z > 1) USING sum(x)", ["t", "w"]),
        ("WITH w AS (FROM k) PIVOT t ON a IN (FROM w)", ["k", "t"]),
        ("SELECT * FROM t PIVOT (sum(x) FOR y IN ('a', 'b'))", ["t"]),
        ("UNPIVOT t ON COLUMNS(* EXCLUDE a)", ["t"]),
        # Functions that name tables
        ("FROM query_table('t')", ["t"]),
        ("FROM query_table(['a', 'b'])", ["a", "b"]),
        ("FROM query('SELECT * FROM a JOIN b USING (x)')", ["a", "b"]),
    ],
)
def test_tables(sql: str, tables: list[str]) -> None:
    reads = tables_read(sql)
    assert [table.name for table in reads.tables] == tables
    assert reads.files == []


@pytest.mark.parametrize(
    ("sql", "files"),
    [
        ("FROM 'x.csv'", ["x.csv"]),
        ('FROM "data/x.parquet"', ["data/x.parquet"]),
        ("SUMMARIZE 'x.csv'", ["x.csv"]),
        ("FROM read_csv('a.csv', header = true)", ["a.csv"]),
        ("FROM read_parquet(['a.parquet', 'b.parquet'])", ["a.parquet", "b.parquet"]),
        ("FROM read_csv('a' || '.csv')", ["read_csv"]),
        ("FROM glob('*')", ["*"]),
        ("SELECT (SELECT count(*) FROM read_text('é.txt'))", ["é.txt"]),
        ("FROM query('FROM read_csv(''a.csv'')')", ["a.csv"]),
    ],
)
def test_files(sql: str, files: list[str]) -> None:
    reads = tables_read(sql)
    assert [file.path_or_function for file in reads.files] == files
    assert reads.tables == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '한글', * FROM 표_하나 JOIN 표_둘 USING (x)",
        "SELECT *\u3000FROM\u3000표_하나,\xa0표_둘",
        "EXPLAIN SELECT 'é' FROM 표_하나, 표_둘",
        "PIVOT (FROM 표_하나) ON 'é' || a, b USING count((FROM 표_둘))",
        "FROM (DESCRIBE 표_하나), (SHOW 표_둘)",
    ],
)
def test_offsets_count_characters(sql: str) -> None:
    reads = tables_read(sql)
    assert [table.name for table in reads.tables] == ["표_하나", "표_둘"]
    for table in reads.tables:
        assert sql[table.offset :].startswith(table.name)


def test_offsets_of_files() -> None:
    sql = "SELECT 'é' FROM 'x.csv', read_csv(['a.csv', 'b.csv'])"
    assert [sql[file.offset :][:5] for file in tables_read(sql).files] == ["'x.cs", "'a.cs", "'b.cs"]


def test_names_are_listed_once() -> None:
    assert tables_read("FROM B, a, b, A").names() == ["B", "a"]


def test_what_is_no_query() -> None:
    with pytest.raises(SyntaxProblem):
        tables_read("CREATE TABLE t (a INTEGER)")
