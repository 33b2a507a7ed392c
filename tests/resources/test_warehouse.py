from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from thano_assets.errors import UnknownTable, WarehouseBusy, WorkspaceError
from thano_assets.resources.warehouse import Column, Warehouse, fingerprint, quote
from thano_assets.resources.workspace import Workspace


@pytest.fixture(params=["kernel", "portable"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    (tmp_path / "data").mkdir()
    return Warehouse(
        tmp_path / "warehouse.duckdb",
        allowed_directories=[tmp_path / "data"],
        portable_lock=request.param == "portable",
    )


@pytest.fixture
def kernel(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "warehouse.duckdb")


def script(path: Path, body: str, portable: bool = False) -> list[str]:
    """A Python process with ``warehouse`` at hand; ``ready`` prints a line at once."""
    return [
        sys.executable,
        "-c",
        "import sys, time\nfrom thano_assets.resources.warehouse import Warehouse\n"
        f"warehouse = Warehouse({str(path)!r}, portable_lock={portable})\n"
        "def ready(): print('ready', flush=True)\n" + body,
    ]


@contextmanager
def process(path: Path, body: str, portable: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Such a process, past its ``ready()``; killed at the end."""
    with subprocess.Popen(script(path, body, portable), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        try:
            yield running
        finally:
            running.kill()


HOLD_WRITE = "with warehouse.write() as connection:\n    ready()\n    time.sleep(60)"
HOLD_READ = "with warehouse.read() as connection:\n    ready()\n    time.sleep(60)"


def make_table(warehouse: Warehouse, name: str = "t", rows: int = 10) -> None:
    with warehouse.write() as connection:
        connection.execute(f"CREATE OR REPLACE TABLE {quote(name)} AS SELECT range AS i FROM range({rows})")


def count(warehouse: Warehouse, name: str = "t") -> int:
    with warehouse.read() as connection:
        return connection.execute(f"SELECT count(*) FROM {quote(name)}").fetchall()[0][0]


# ------------------------------------------------------------------------------------------ everyday


def test_before_the_first_write_it_is_empty(warehouse: Warehouse) -> None:
    with warehouse.read() as connection:
        assert connection.execute("SELECT 40 + 2").fetchall() == [(42,)]
    assert warehouse.tables() == []
    assert not warehouse.exists("t")
    assert not warehouse.path.exists()


def test_tables(warehouse: Warehouse) -> None:
    with warehouse.write() as connection:
        connection.execute('CREATE TABLE "무비 리뷰" AS SELECT \'a\' AS review, true AS "la""bel"')
        connection.execute("CREATE TABLE numbers AS SELECT range AS i FROM range(5)")
        connection.execute("CREATE TEMP TABLE passing AS SELECT 1")
        connection.execute("CREATE VIEW seen AS FROM numbers")
    by_name = {table.name: table for table in warehouse.tables()}
    assert list(by_name) == ["numbers", "무비 리뷰"]
    assert by_name["numbers"].rows == 5
    assert by_name["무비 리뷰"].columns == [Column("review", "VARCHAR"), Column('la"bel', "BOOLEAN")]
    assert warehouse.exists("NUMBERS")
    assert warehouse.describe("SELECT i / 2 AS half FROM numbers") == [Column("half", "DOUBLE")]


def test_drop(warehouse: Warehouse) -> None:
    make_table(warehouse, "numbers")
    with pytest.raises(UnknownTable, match=r"There is no table nubmers. Did you mean numbers\?"):
        warehouse.drop("nubmers")
    warehouse.drop("Numbers")
    assert warehouse.tables() == []


def test_nesting_in_a_thread(warehouse: Warehouse) -> None:
    with warehouse.write() as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS i")
        with warehouse.read() as inner:
            assert inner.execute("FROM t").fetchall() == [(1,)]
        with warehouse.write() as inner:
            inner.execute("INSERT INTO t VALUES (2)")
        assert warehouse.exists("t")
    with warehouse.read() as outer:
        rows = outer.execute("FROM t")
        with warehouse.read() as inner:
            assert len(inner.execute("FROM t").fetchall()) == 2
        assert len(rows.fetchall()) == 2, "the inner reading has a connection of its own"
        with pytest.raises(RuntimeError, match="would wait for itself"), warehouse.write():
            pass
    assert count(warehouse) == 2


def test_what_a_failed_block_did_has_never_been(warehouse: Warehouse) -> None:
    make_table(warehouse)
    with contextlib.suppress(ZeroDivisionError), warehouse.write() as connection:
        connection.execute("CREATE OR REPLACE TABLE t AS SELECT 1 AS i")
        1 / 0  # noqa: B018
    assert count(warehouse) == 10


def test_a_users_own_error_passes_through(warehouse: Warehouse) -> None:
    with pytest.raises(FileNotFoundError), warehouse.write():
        (warehouse.path.parent / "none").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------ fingerprint


def test_fingerprint_is_of_the_content(kernel: Warehouse) -> None:
    with kernel.write() as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT range AS i, 'text ' || range AS s, [range, NULL] AS l, "
            "{'a': range} AS st, MAP {'k': range} AS m, (range % 3)::DOUBLE / 7 AS d, NULL::DATE AS n "
            "FROM range(1000)"
        )
        whole = fingerprint(connection, "t")
        assert fingerprint(connection, "SELECT * FROM t ORDER BY random()") == whole
        assert fingerprint(connection, '"t"') == kernel.fingerprint(connection, "t") == whole
        others = [
            "FROM t LIMIT 999",
            "FROM t UNION ALL FROM t",
            "FROM t UNION ALL (FROM t LIMIT 1)",
            "SELECT * REPLACE (i + 1 AS i) FROM t",
            "SELECT * REPLACE (i::INTEGER AS i) FROM t",
            "SELECT * RENAME (i AS j) FROM t",
            "SELECT * REPLACE (s || '' AS n) FROM t",
            "SELECT s, * EXCLUDE (s) FROM t",
            "SELECT * REPLACE (CASE WHEN i = 5 THEN NULL ELSE s END AS s) FROM t",
            "SELECT * REPLACE (CASE WHEN i = 5 THEN '' ELSE s END AS s) FROM t",
            "SELECT * REPLACE (CASE i WHEN 5 THEN 'text 6' WHEN 6 THEN 'text 5' ELSE s END AS s) FROM t",
            "FROM t LIMIT 0",
        ]
        seen = {whole, *(fingerprint(connection, f"({other})") for other in others)}
        assert len(seen) == 1 + len(others)


def test_pairs_of_equal_rows_do_not_cancel_out(kernel: Warehouse) -> None:
    with kernel.write() as connection:
        one = "SELECT * FROM (VALUES ('a'), ('a'), ('b'), ('b'), ('c')) v(x)"
        two = "SELECT * FROM (VALUES ('a'), ('a'), ('d'), ('d'), ('c')) v(x)"
        assert fingerprint(connection, one) != fingerprint(connection, two)


# ----------------------------------------------------------------------------------- what SQL may reach


def test_sql_reaches_only_the_allowed_folders(warehouse: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "data" / "in.csv").write_text("a\n1\n", encoding="utf-8")
    (tmp_path / "out.csv").write_text("a\n1\n", encoding="utf-8")
    (tmp_path / "data" / "link.csv").symlink_to(tmp_path / "out.csv")
    (tmp_path / "data-2").mkdir()
    (tmp_path / "data-2" / "in.csv").write_text("a\n1\n", encoding="utf-8")
    make_table(warehouse)
    refused = [
        f"FROM '{tmp_path}/out.csv'",
        f"FROM '{tmp_path}/data/../out.csv'",
        f"FROM '{tmp_path}/data/link.csv'",
        f"FROM '{tmp_path}/data-2/in.csv'",
        "FROM read_text('/etc/passwd')",
        "FROM glob('/etc/*')",
        f"ATTACH '{tmp_path}/other.duckdb'",
        f"COPY (SELECT 1) TO '{tmp_path}/out.parquet'",
        "FROM 'http://127.0.0.1:9/a.csv'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SET threads = 1",
        "INSTALL httpfs",
        "LOAD httpfs",
    ]
    for opening in (warehouse.read, warehouse.write):
        with opening() as connection:
            assert connection.execute(f"FROM '{tmp_path}/data/in.csv'").fetchall() == [(1,)]
            for sql in refused:
                with pytest.raises(duckdb.Error):
                    connection.execute(sql)
    with warehouse.read() as connection, pytest.raises(duckdb.InvalidInputException, match="read-only"):
        connection.execute("DROP TABLE t")


def test_python_variables_are_not_tables(warehouse: Warehouse) -> None:
    import pyarrow as pa

    secret = pa.table({"a": [1]})
    with warehouse.read() as connection:
        with pytest.raises(duckdb.CatalogException):
            connection.execute("FROM secret")
        connection.register("given", secret)
        assert connection.execute("FROM given").fetchall() == [(1,)]


def test_settings_of_the_workspace(workspace: Workspace) -> None:
    workspace.settings_path.write_text("[warehouse]\nmemory_limit = '100MB'\nthreads = 1\n", encoding="utf-8")
    warehouse = Warehouse.of(Workspace(workspace.root))
    (workspace.data / "a.csv").write_text("a\n1\n", encoding="utf-8")
    with warehouse.write() as connection:
        assert connection.execute("SELECT current_setting('threads')").fetchall() == [(1,)]
        connection.execute(f"COPY (FROM '{workspace.data}/a.csv') TO '{workspace.snapshots}/a.parquet'")
        # More than fits into memory goes to a file beside the database.
        connection.execute(
            "CREATE TABLE big AS SELECT md5(range::VARCHAR) || md5((range + 1)::VARCHAR) AS s FROM range(2_000_000)"
        )
        assert connection.execute("SELECT count(*) FROM (SELECT DISTINCT s FROM big)").fetchall() == [
            (2_000_000,)
        ]


def test_a_stage_can_be_attached(workspace: Workspace) -> None:
    warehouse = Warehouse.of(workspace)
    stage = workspace.snapshots / "stage.duckdb"
    for _ in range(2):
        with warehouse.read() as connection:
            connection.execute(f"ATTACH '{stage}' AS stage (READ_WRITE)")
            connection.execute("CREATE OR REPLACE TABLE stage.rows AS SELECT 1 AS a")
            connection.execute("DETACH stage")
        make_table(warehouse, "x")  # the second time the database is there
    with warehouse.write() as connection:
        connection.execute(f"ATTACH '{stage}' AS stage (READ_ONLY)")
        connection.execute("CREATE TABLE t AS FROM stage.rows")
    assert count(warehouse) == 1


# --------------------------------------------------------------------------------------- many at once


def test_threads_read_and_write(warehouse: Warehouse) -> None:
    make_table(warehouse)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(4):
                if number % 2:
                    make_table(warehouse, f"t{number}", turn + 1)
                else:
                    assert count(warehouse) == 10
        except BaseException as error:  # whatever a thread raises is the test's failure
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert count(warehouse, "t5") == 4


def test_warehouses_of_one_process_with_other_folders_wait_for_each_other(tmp_path: Path) -> None:
    one = Warehouse(tmp_path / "w.duckdb", allowed_directories=[tmp_path])
    two = Warehouse(tmp_path / "w.duckdb", allowed_directories=["/usr"])
    make_table(one)
    entered = threading.Event()
    leave = threading.Event()

    def hold() -> None:
        with one.read():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(10)
    threading.Timer(0.3, leave.set).start()
    with two.read() as connection, pytest.raises(duckdb.PermissionException):
        connection.execute(f"FROM glob('{tmp_path}/*')")
    thread.join()


def test_processes_write_and_read(warehouse: Warehouse) -> None:
    make_table(warehouse)
    portable = type(warehouse._lock).__name__ == "PortableLock"
    write = "for i in range(8):\n    with warehouse.write() as c: c.execute(f'CREATE OR REPLACE TABLE p{sys.argv[1]} AS SELECT {i} AS i')"
    read = "for i in range(8):\n    with warehouse.read() as c: assert c.execute('SELECT count(*) FROM t').fetchall() == [(10,)]"
    commands = [
        [*script(warehouse.path, body, portable), str(n)] for n, body in enumerate((write, write, read))
    ]
    running = [subprocess.Popen(command) for command in commands]
    assert [one.wait(timeout=60) for one in running] == [0, 0, 0]
    assert {table.name for table in warehouse.tables()} == {"t", "p0", "p1"}


def test_several_processes_read_at_once(warehouse: Warehouse) -> None:
    make_table(warehouse)
    with process(warehouse.path, HOLD_READ, type(warehouse._lock).__name__ == "PortableLock"):
        begun = time.monotonic()
        assert count(warehouse) == 10
        assert time.monotonic() - begun < 5


def test_waiting_says_for_whom_and_ends_when_the_holder_is_killed(tmp_path: Path) -> None:
    said: list[str] = []
    warehouse = Warehouse(tmp_path / "warehouse.duckdb", on_wait=said.append)
    make_table(warehouse)
    with process(warehouse.path, HOLD_WRITE) as holder:
        threading.Timer(1.0, holder.kill).start()
        begun = time.monotonic()
        assert count(warehouse) == 10
        assert 0.5 < time.monotonic() - begun < 5
    (sentence,) = said
    assert f"process {holder.pid} (-c)" in sentence


def test_waiting_is_told_to_the_progress_receiver(tmp_path: Path) -> None:
    from thano_assets.progress import Progress, reporting_to

    class Listener(Progress):
        said: list[str] = []  # noqa: RUF012 - one listener, one test

        def message(self, text: str) -> None:
            self.said.append(text)

    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    with process(warehouse.path, HOLD_WRITE) as holder, reporting_to(Listener()):
        threading.Timer(0.8, holder.kill).start()
        assert warehouse.tables() == []
    assert "Waiting for the warehouse" in Listener.said[0]


def test_a_writer_is_not_starved_by_readers(kernel: Warehouse) -> None:
    make_table(kernel)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with kernel.read() as connection:
                connection.execute("FROM t")
                time.sleep(0.05)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    time.sleep(0.3)
    begun = time.monotonic()
    make_table(kernel, "written")
    waited = time.monotonic() - begun
    stop.set()
    for reader in readers:
        reader.join()
    assert waited < 3


@pytest.mark.parametrize("portable", [False, True])
def test_waiting_ends_with_ctrl_c(tmp_path: Path, portable: bool) -> None:
    path = tmp_path / "warehouse.duckdb"
    body = "ready()\ntry:\n    with warehouse.read(): pass\nexcept KeyboardInterrupt: sys.exit(7)"
    with process(path, HOLD_WRITE, portable), process(path, body, portable) as waiter:
        time.sleep(0.5)
        waiter.send_signal(signal.SIGINT)
        assert waiter.wait(timeout=5) == 7


def test_a_program_that_knows_no_lock_of_ours(kernel: Warehouse) -> None:
    make_table(kernel)
    kernel.foreign_patience = 0.5
    said: list[str] = []
    kernel._on_wait = said.append
    body = f"import duckdb\nconnection = duckdb.connect({str(kernel.path)!r})\nready()\ntime.sleep(60)"
    with process(kernel.path, body) as holder:
        with pytest.raises(WarehouseBusy) as caught:
            kernel.tables()
        assert str(holder.pid) in caught.value.message
        assert caught.value.hint == "Close it there and run the statement again."
        assert str(holder.pid) in said[0]
        kernel.foreign_patience = 10
        threading.Timer(0.5, holder.kill).start()
        assert [table.name for table in kernel.tables()] == ["t"]


def test_this_process_has_the_file_open_itself(kernel: Warehouse) -> None:
    make_table(kernel)
    kernel.foreign_patience = 0.3
    with duckdb.connect(str(kernel.path)), pytest.raises(WarehouseBusy, match="Another part of this process"):
        kernel.tables()
    assert kernel.exists("t")


# ------------------------------------------------------------------------------------- kills and disks


def test_a_killed_writer_leaves_what_was_there(kernel: Warehouse) -> None:
    make_table(kernel)
    body = (
        "with warehouse.write() as c:\n"
        "    c.execute('CREATE TABLE half AS SELECT 1 AS i')\n"
        "    ready()\n"
        '    c.execute("CREATE OR REPLACE TABLE t AS SELECT md5(range::VARCHAR) AS s FROM range(50_000_000)")'
    )
    with process(kernel.path, body) as writer:
        time.sleep(1.5)
        assert writer.poll() is None, "killed amid its work"
        writer.kill()
        writer.wait()
        assert count(kernel) == 10
        assert not kernel.exists("half")
    make_table(kernel, "t", 3)
    assert count(kernel) == 3


def test_a_log_that_a_killed_writer_left_hinders_nobody(kernel: Warehouse) -> None:
    make_table(kernel)
    body = (
        "with warehouse.write() as c:\n    c.execute('CREATE TABLE kept AS SELECT range AS i FROM range(7)')\n"
        "    c.execute('COMMIT'); c.execute('BEGIN')\n    ready()\n    time.sleep(60)"
    )
    with process(kernel.path, body) as writer:
        writer.kill()
        writer.wait()
        assert kernel.path.with_name("warehouse.duckdb.wal").exists(), "committed, not yet in the file"
        assert count(kernel, "kept") == 7
    make_table(kernel, "t", 3)
    assert count(kernel) == 3
    assert not kernel.path.with_name("warehouse.duckdb.wal").exists()


def test_no_space_left(kernel: Warehouse) -> None:
    make_table(kernel)
    body = (
        "import resource\nfrom thano_assets.errors import WorkspaceError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))\n"
        "ready()\n"
        "try:\n    with warehouse.write() as c:\n"
        "        c.execute('CREATE OR REPLACE TABLE t AS SELECT md5(range::VARCHAR) AS s FROM range(3_000_000)')\n"
        "except WorkspaceError as error: print(error)"
    )
    with process(kernel.path, body) as writer:
        assert writer.stdout is not None
        assert "there is no space left on its disk" in writer.stdout.read()
    assert count(kernel) == 10
    make_table(kernel, "t", 11)
    assert count(kernel) == 11


def test_a_folder_that_cannot_be_written() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_table(Warehouse(folder / "w.duckdb"))
        folder.chmod(0o555)
        folder.joinpath("w.duckdb").chmod(0o444)
        folder.joinpath("w.duckdb.lock").chmod(0o444)
        folder.joinpath("w.duckdb.lock.gate").chmod(0o444)
        body = (
            "import os\nfrom thano_assets.errors import WorkspaceError\n"
            "if os.getuid() == 0: os.setuid(65534)\n"
            "ready()\n"
            "print([(t.name, t.rows) for t in warehouse.tables()])\n"
            "try:\n    with warehouse.write(): pass\nexcept WorkspaceError as error: print(error)"
        )
        try:
            with process(folder / "w.duckdb", body) as running:
                assert running.stdout is not None
                tables, refused = running.stdout.read().splitlines()
        finally:
            folder.chmod(0o755)
        assert tables == "[('t', 10)]"
        assert "cannot be used" in refused


def test_a_file_that_is_no_database(kernel: Warehouse) -> None:
    kernel.path.write_text("review,sentiment\n" * 1000, encoding="utf-8")
    with pytest.raises(WorkspaceError, match="is no DuckDB database"):
        kernel.tables()


def test_half_a_database_of_a_killed_first_write_is_not_in_the_way(kernel: Warehouse) -> None:
    kernel.path.with_name(".warehouse.duckdb.new").write_bytes(b"half")
    make_table(kernel)
    assert count(kernel) == 10
    assert sorted(path.name for path in kernel.path.parent.iterdir()) == [
        "warehouse.duckdb",
        "warehouse.duckdb.lock",
        "warehouse.duckdb.lock.gate",
        "warehouse.duckdb.note",
    ]
