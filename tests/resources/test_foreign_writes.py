"""Whose writes a database file has: ours, or those of other programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from thano_assets.resources.warehouse import Warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    with warehouse.write() as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS i FROM range(10)")
    return warehouse


def test_our_writes_leave_the_mark_and_those_of_others_change_it(warehouse: Warehouse) -> None:
    first = warehouse.foreign_mark("t")
    with warehouse.write() as connection:
        connection.execute("UPDATE t SET i = 20 WHERE i = 2")
        assert warehouse.foreign_mark("t") == first
    with pytest.raises(duckdb.BinderException), warehouse.write() as connection:
        connection.execute("DELETE FROM t; SELECT nothing FROM t")
    with warehouse.read() as connection:
        connection.execute("SELECT * FROM t")
    assert warehouse.foreign_mark("t") == first
    with duckdb.connect(str(warehouse.path)) as other:  # reads, and has tables of its own
        other.execute("SELECT * FROM t; CREATE TEMP TABLE own AS SELECT 1")
    assert warehouse.foreign_mark("t") == first
    marks = {first}
    for number in range(3):
        with duckdb.connect(str(warehouse.path)) as other:
            other.execute(f"UPDATE t SET i = {number} WHERE i = 5; UPDATE t SET i = 5 WHERE i = {number}")
        marks.add(warehouse.foreign_mark("t"))
        with warehouse.write() as connection:
            assert warehouse.foreign_mark("t") in marks
            connection.execute("CREATE OR REPLACE TABLE mine AS SELECT 1")
        assert warehouse.foreign_mark("t") in marks
    assert len(marks) == 4


def test_what_a_killed_program_left_in_the_log_changes_it(warehouse: Warehouse) -> None:
    first = warehouse.foreign_mark("t")
    code = (
        f"import duckdb, os; c = duckdb.connect({str(warehouse.path)!r}); "
        "c.execute('UPDATE t SET i = 3'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert warehouse.path.with_name("warehouse.duckdb.wal").is_file()
    second = warehouse.foreign_mark("t")
    assert second != first
    with warehouse.write() as connection:
        connection.execute("CREATE TABLE mine AS SELECT 1")
    assert warehouse.foreign_mark("t") != first


def test_a_lost_note_counts_as_a_write_of_others(warehouse: Warehouse) -> None:
    first = warehouse.foreign_mark("t")
    note = warehouse.path.with_name("warehouse.duckdb.note")
    for content in (b"{", b'{"state": "x"}', b"\xff"):
        note.write_bytes(content)
        assert warehouse.foreign_mark("t") != first
    note.unlink()
    second = warehouse.foreign_mark("t")
    with warehouse.write() as connection:
        connection.execute("DROP TABLE t")
    assert warehouse.foreign_mark("t") == second


def test_an_environment_asks_about_the_file_that_the_table_is_in(
    tmp_path: Path, warehouse: Warehouse
) -> None:
    own = Warehouse(tmp_path / "own.duckdb", borrows=warehouse.path)
    assert own.foreign_mark("t") == warehouse.foreign_mark("t")
    with own.write() as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS i")
    assert own.foreign_mark("t") != warehouse.foreign_mark("t")
