"""An environment: own folders inside the workspace, everything else production's, read and never changed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from thano_assets.catalog import Entry, EntryKind, catalog_of
from thano_assets.errors import BorrowedAsset, UnknownModel, UnknownTable, WorkspaceError
from thano_assets.orchestration.resources import resources_for
from thano_assets.resources.environments import (
    Environment,
    EnvironmentRegistry,
    environments,
    existing_environment,
    in_environment,
    open_workspace,
    registry_of,
    remove,
    workspace_at,
)
from thano_assets.resources.registry import ModelVersion, Registry
from thano_assets.resources.warehouse import Warehouse
from thano_assets.resources.workspace import Workspace


@pytest.fixture
def environment(workspace: Workspace) -> Environment:
    opened = open_workspace(workspace.root, environment="trial")
    assert isinstance(opened, Environment)
    return opened


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- folders and names ---------------------------------------------------------------------------------


def test_what_is_made_is_its_own_and_what_is_given_is_productions(
    workspace: Workspace, environment: Environment
) -> None:
    own = workspace.root / "environments" / "trial"
    assert environment.root == own
    for path in (environment.statements, environment.snapshots, environment.mlflow, environment.dagster_home):
        assert path.parent == own
        assert path.is_dir()
    assert environment.warehouse_path.parent == own
    assert (environment.dagster_home / "dagster.yaml").is_file()
    assert environment.data == workspace.data
    assert environment.models_cache == workspace.models_cache
    assert environment.settings_path == workspace.settings_path
    assert environment.readable_folders == workspace.readable_folders
    assert sorted(path.name for path in own.iterdir()) == sorted(
        [".gitignore", ".locks", "dagster", "mlflow", "snapshots", "statements"]
    )


def test_it_is_the_same_by_its_folder_its_name_and_the_variable(
    workspace: Workspace, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workspace_at(environment.root) == environment
    assert open_workspace(environment.root) == environment
    assert open_workspace(environment.root).production == workspace
    assert in_environment(environment, "other").root == workspace.root / "environments" / "other"
    monkeypatch.setenv("THANO_ENV", "trial")
    assert open_workspace(workspace.root) == environment
    assert open_workspace(environment.root) == environment
    assert open_workspace(workspace.root, environment="other").root.name == "other"
    assert open_workspace(workspace.root, environment="") == workspace


def test_a_folder_of_that_shape_that_is_a_workspace_stays_one(workspace: Workspace) -> None:
    inner = open_workspace(workspace.root / "environments" / "whole")
    assert isinstance(inner, Environment)
    outside = open_workspace(workspace.root.parent / "environments" / "whole")
    assert not isinstance(outside, Environment)
    assert (outside.root / "thano.toml").is_file()


@pytest.mark.parametrize("name", ["a", "trial-2", "한글", "A_b", "x" * 64])
def test_names_that_can_be(workspace: Workspace, name: str) -> None:
    assert Environment(workspace, name).root.name == name


@pytest.mark.parametrize("name", ["", "-x", "a/b", "..", "a b", "a.b", "x" * 65, "production", "Production"])
def test_names_that_cannot_be(workspace: Workspace, name: str) -> None:
    with pytest.raises(WorkspaceError, match="environment"):
        Environment(workspace, name)


def test_removing_one_leaves_production_and_the_others(
    workspace: Workspace, environment: Environment
) -> None:
    open_workspace(workspace.root, environment="other")
    assert [one.name for one in environments(workspace)] == ["other", "trial"]
    with Warehouse.of(workspace).write() as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    remove(existing_environment(workspace, "trial"))
    assert [path.name for path in (workspace.root / "environments").iterdir()] == ["other"]
    assert Warehouse.of(workspace).exists("t")
    with pytest.raises(WorkspaceError, match="no environment othr") as caught:
        existing_environment(workspace, "othr")
    assert "Did you mean other?" in str(caught.value)


def test_models_tried_here_never_go_to_productions_server(workspace: Workspace) -> None:
    workspace.settings_path.write_text('[mlflow]\ntracking_uri = "http://127.0.0.1:9"\n', encoding="utf-8")
    fresh = Workspace(workspace.root)
    registry = registry_of(Environment(fresh, "trial"))
    assert registry.tracking_uri.startswith("sqlite:///")
    assert "/environments/trial/" in registry.tracking_uri
    assert Registry(fresh).tracking_uri == "http://127.0.0.1:9"


def test_locks_of_shared_folders_are_productions(workspace: Workspace, environment: Environment) -> None:
    for name, owner in (
        ("training-abc", workspace),
        ("movie_review_data", workspace),
        ("table-t", environment),
        ("mlflow", environment),
    ):
        with environment.lock(name):
            assert (owner.root / ".locks" / f"{name}.lock").exists()
            other = environment if owner is workspace else workspace
            assert not (other.root / ".locks" / f"{name}.lock").exists()


def test_snapshots_are_read_where_they_are(workspace: Workspace, environment: Environment) -> None:
    assert environment.kept("a.parquet") == environment.snapshots / "a.parquet"
    (workspace.snapshots / "a.parquet").touch()
    assert environment.kept("a.parquet") == workspace.snapshots / "a.parquet"
    (environment.snapshots / "a.parquet").touch()
    assert environment.kept("a.parquet") == environment.snapshots / "a.parquet"
    assert workspace.kept("b.parquet") == workspace.snapshots / "b.parquet"


def test_dagsters_resources_are_the_environments(workspace: Workspace, environment: Environment) -> None:
    resources = resources_for(environment)
    assert resources["workspace"].workspace == environment
    assert isinstance(resources["registry"].registry, EnvironmentRegistry)
    assert resources["warehouse"].warehouse.borrows == workspace.warehouse_path
    assert resources_for(workspace)["warehouse"].warehouse.borrows is None


# -- statements ----------------------------------------------------------------------------------------


def test_statements_are_its_own_first_then_productions(
    workspace: Workspace, environment: Environment
) -> None:
    production, catalog = catalog_of(workspace), catalog_of(environment)
    production.put(Entry(EntryKind.TABLE, "a", "CREATE TABLE a AS SELECT 1\n;\n"))
    production.put(Entry(EntryKind.TABLE, "b", "CREATE TABLE b AS SELECT 1\n;\n"))
    production.put(Entry(EntryKind.MODEL, "b", "GET THANOSQL MODEL electra\n;\n"))
    mine = Entry(EntryKind.PREDICTION, "B", "CREATE TABLE B AS PREDICT USING m AS SELECT * FROM a\n;\n")
    catalog.put(mine)
    assert [(entry.kind.value, entry.name) for entry in catalog.entries()] == [
        ("tables", "a"),
        ("models", "b"),
        ("predictions", "B"),
    ]
    assert catalog.relation("b") == mine
    assert catalog.get(EntryKind.TABLE, "b") is None
    assert catalog.model("b") is not None
    assert catalog.names(EntryKind.TABLE) == ["a"]
    assert catalog.names() == ["B", "a", "b"]
    with pytest.raises(BorrowedAsset, match="table a is production's"):
        catalog.remove(EntryKind.TABLE, "a")
    assert catalog.remove(EntryKind.PREDICTION, "b")
    entry = catalog.relation("b")
    assert entry is not None
    assert entry.kind is EntryKind.TABLE
    assert len(production.entries()) == 3


# -- tables --------------------------------------------------------------------------------------------


def test_tables_are_its_own_first_then_productions(workspace: Workspace, environment: Environment) -> None:
    production, warehouse = Warehouse.of(workspace), Warehouse.of(environment)
    with warehouse.read() as connection:  # neither has made a file yet
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    with production.write() as connection:
        connection.execute("CREATE TABLE a AS SELECT 1 AS x")
        connection.execute("CREATE TABLE b AS SELECT 'production' AS who")
    before = digest(workspace.warehouse_path)
    with warehouse.read() as connection:
        assert connection.execute("SELECT x FROM a").fetchall() == [(1,)]
    assert not environment.warehouse_path.exists()
    with warehouse.write() as connection:
        connection.execute("CREATE OR REPLACE TABLE b AS SELECT x, 'trial' AS who FROM a")
        with warehouse.read() as inner:
            assert inner.execute("SELECT who FROM b").fetchall() == [("trial",)]
    assert [(table.name, len(table.columns)) for table in warehouse.tables()] == [("a", 1), ("b", 2)]
    assert warehouse.exists("A")
    assert not warehouse.has_own("a")
    assert warehouse.has_own("B")
    with warehouse.read() as connection, warehouse.read() as inner:
        assert inner.execute("SELECT who, x FROM a JOIN b USING (x)").fetchall() == [("trial", 1)]
        connection.execute("CREATE TEMP TABLE a AS SELECT 2 AS x")
        assert connection.execute("SELECT x FROM a").fetchall() == [(2,)]
    with pytest.raises(BorrowedAsset):
        warehouse.drop("a")
    warehouse.drop("b")
    assert [len(table.columns) for table in warehouse.tables()] == [1, 1]
    with pytest.raises(UnknownTable):
        warehouse.drop("c")
    assert digest(workspace.warehouse_path) == before


def test_productions_tables_cannot_be_written_from_here(
    workspace: Workspace, environment: Environment
) -> None:
    import duckdb

    with Warehouse.of(workspace).write() as connection:
        connection.execute("CREATE TABLE a AS SELECT 1 AS x")
    for sql in ("INSERT INTO a VALUES (2)", "DROP TABLE a", "CREATE TABLE production.main.c AS SELECT 1"):
        with pytest.raises(duckdb.Error, match="read-only"), Warehouse.of(environment).write() as connection:
            connection.execute(sql)


def test_one_thread_may_read_both_and_never_waits_for_itself(
    workspace: Workspace, environment: Environment
) -> None:
    production, warehouse = Warehouse.of(workspace), Warehouse.of(environment)
    with production.write() as connection:
        connection.execute("CREATE TABLE a AS SELECT 1 AS x")
        with pytest.raises(RuntimeError), warehouse.read():
            pass
    with warehouse.read() as outer, production.read() as connection:
        assert connection.execute("FROM a").fetchall() == outer.execute("FROM a").fetchall()
        with pytest.raises(RuntimeError), production.write():
            pass
    with production.read(), warehouse.write() as connection:
        connection.execute("CREATE TABLE b AS FROM a")


def test_a_reader_waits_for_one_that_began_before_production_had_tables(
    workspace: Workspace, environment: Environment
) -> None:
    warehouse, waits = Warehouse.of(environment), threading.Event()
    with warehouse.write() as connection:
        connection.execute("CREATE TABLE own AS SELECT 1 AS x")
    seen: list[object] = []

    def read() -> None:
        patient = Warehouse.of(environment, on_wait=lambda _: waits.set())
        with patient.read() as connection:
            seen.extend(connection.execute("SELECT x FROM a").fetchall())

    thread = threading.Thread(target=read, daemon=True)
    with warehouse.read():
        # As another process would: this thread itself may not write what it reads.
        import duckdb

        duckdb.connect(str(workspace.warehouse_path)).execute("CREATE TABLE a AS SELECT 2 AS x").close()
        thread.start()
        assert waits.wait(10)
    thread.join(20)
    assert seen == [(2,)]


def test_many_readers_and_writers_of_both_all_come_to_an_end(
    workspace: Workspace, environment: Environment
) -> None:
    production, warehouse = Warehouse.of(workspace), Warehouse.of(environment)
    with production.write() as connection:
        connection.execute("CREATE TABLE a (x INTEGER)")
    with warehouse.write() as connection:
        connection.execute("CREATE TABLE b (x INTEGER)")
    seen: list[str] = []

    def work(act: Callable[[], None]) -> None:
        for _ in range(5):
            act()
        seen.append("done")

    def insert(one: Warehouse, table: str) -> None:
        with one.write() as connection:
            connection.execute(f"INSERT INTO {table} VALUES (1)")

    def read_both() -> None:
        with warehouse.read() as outer, production.read() as inner:
            outer.execute("SELECT * FROM a, b").fetchall()
            inner.execute("SELECT * FROM a").fetchall()

    acts = [lambda: insert(production, "a"), lambda: insert(warehouse, "b"), read_both]
    threads = [threading.Thread(target=work, args=(act,), daemon=True) for act in acts * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == ["done"] * len(threads)
    with warehouse.read() as connection:
        assert connection.execute("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)").fetchall() == [
            (10, 10)
        ]


# -- models --------------------------------------------------------------------------------------------


@pytest.fixture
def registered(tracked_workspace: Workspace, mlflow_database: Path, classifier: Path) -> EnvironmentRegistry:
    """Production has versions 1 and 2 of ``m``, 2 the champion; the environment has nothing yet."""
    environment = open_workspace(tracked_workspace.root, environment="trial")
    (environment.mlflow / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    for accuracy in (0.7, 0.8):
        register(Registry(tracked_workspace), classifier, accuracy)
    registry = registry_of(environment)
    assert isinstance(registry, EnvironmentRegistry)
    return registry


def register(registry: Registry, classifier: Path, accuracy: float) -> ModelVersion:
    with registry.build("m", tags={"thano.data_version": str(accuracy)}) as build:
        return build.register(
            classifier,
            labels={"classes": ["negative", "positive"], "type": "VARCHAR"},
            metrics={"accuracy": accuracy},
        )


def test_models_are_its_own_first_then_productions(registered: EnvironmentRegistry, classifier: Path) -> None:
    production = registered.production
    assert registered.models() == ["m"]
    assert registered.own_models() == []
    assert registered.resolve("m") == production.resolve("m")
    assert registered.resolve("m", version=1) == production.resolve("m", version=1)
    assert [one.version for one in registered.versions("m")] == [1, 2]
    with pytest.raises(BorrowedAsset, match="model m VERSION 1"):
        registered.delete("m", 1)
    with pytest.raises(BorrowedAsset, match="model m is"):
        registered.delete("m")
    with pytest.raises(UnknownModel):
        registered.delete("other")

    own = register(registered, classifier, 0.9)
    assert own.version == 1
    assert own.path.is_relative_to(registered.workspace.mlflow)
    assert registered.resolve("m") == own
    lent = registered.resolve("m", version=2)
    assert lent == production.resolve("m")
    assert lent is not None
    registered.tag(lent, {"note": "x"})
    registered.log_evaluation(lent, {"accuracy": 1.0}, rows=1, digest="d", source="s")
    assert [(one.version, one.aliases) for one in production.versions("m")] == [(1, ()), (2, ("champion",))]
    assert production.resolve("m") == lent

    registered.delete("m")
    assert registered.resolve("m") == lent
    assert lent.path.is_dir()


def test_a_version_that_only_production_has_is_promoted_here_alone(registered: EnvironmentRegistry) -> None:
    promoted = registered.promote("m", 1)
    lent = registered.production.resolve("m", version=1)
    assert lent is not None
    assert promoted.path == lent.path
    assert promoted.metrics == {"accuracy": 0.7}
    assert promoted.tags["thano.data_version"] == "0.7"
    assert registered.resolve("m") == promoted
    champion = registered.production.resolve("m")
    assert champion is not None
    assert champion.version == 2
    second = registered.promote("m", 2)
    assert second.path == champion.path
    assert second.version == 2
    assert registered.promote("m", 2) == second, "taken in once"
    with pytest.raises(UnknownModel, match="no version 9"):
        registered.promote("m", 9)
    registered.delete("m")
    assert lent.path.is_dir()
    assert champion.path.is_dir()
