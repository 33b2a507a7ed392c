"""DuckDB's parser as the judge, and where its complaints point."""

from __future__ import annotations

import threading

import duckdb
import pytest

from thano_assets.sql import parse
from thano_assets.sql.judge import Complaint, duckdb_error_offset, statement_kinds
from thano_assets.sql.lexer import tokenize
from thano_assets.sql.queries import after_explain


def test_kinds() -> None:
    assert statement_kinds("SELECT 1") == ["SELECT"]
    assert statement_kinds("INSERT INTO t VALUES (1)") == ["INSERT"]
    assert statement_kinds("SELECT 1; SELECT 2") == ["SELECT", "SELECT"]


@pytest.mark.parametrize("sql", ["SELECT 'é', a b c", "SELECT '한글',\u3000a b c", "SELECT\xa0a b c"])
def test_complaints_count_characters(sql: str) -> None:
    complaint = statement_kinds(sql)
    assert isinstance(complaint, Complaint)
    assert sql[complaint.offset : complaint.offset + complaint.length] == "c"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT missing FROM t",
        "SELECT '한글이야', missing FROM t",
        "SELECT a,\n  missing\nFROM t",
        "SELECT " + "a, " * 60 + "missing FROM t",
        "SELECT " + "'한글', " * 40 + "missing, " + "a, " * 60 + "a FROM t",
    ],
)
def test_places_of_errors_found_later(sql: str) -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE t (a INTEGER)")
    with pytest.raises(duckdb.Error) as caught:
        connection.execute(sql)
    assert duckdb_error_offset(str(caught.value), sql) == sql.index("missing")


def test_a_message_without_a_place() -> None:
    assert duckdb_error_offset("Out of Memory Error: no", "SELECT 1") is None


@pytest.mark.parametrize(
    ("sql", "rest"),
    [
        ("SELECT 1", "SELECT"),
        ("EXPLAIN SELECT 1", "SELECT"),
        ("EXPLAIN ANALYZE FROM t", "FROM"),
        ("EXPLAIN (FORMAT json) VALUES (1)", "VALUES"),
        ("EXPLAIN (SELECT 1)", "("),
    ],
)
def test_what_follows_explain(sql: str, rest: str) -> None:
    tokens = tokenize(sql)
    assert tokens[after_explain(tokens)].text == rest


def test_many_threads_may_parse() -> None:
    found: list[int] = []

    def work() -> None:
        for _ in range(50):
            found.append(len(parse("SELECT 1; SELECT * FROM (PREDICT USING m AS FROM t)")))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2] * 200
