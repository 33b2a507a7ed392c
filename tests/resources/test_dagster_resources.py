from __future__ import annotations

import dagster as dg
from dagster_duckdb import DuckDBResource

from thano_assets.orchestration.resources import resources_for
from thano_assets.resources.warehouse import Warehouse
from thano_assets.resources.workspace import Workspace


def test_assets_get_the_resources(workspace: Workspace) -> None:
    @dg.asset(required_resource_keys={"workspace", "warehouse", "registry"})
    def table(context) -> None:  # type: ignore[no-untyped-def]  # Dagster reads the annotation itself
        resources = context.resources
        with resources.warehouse.get_connection() as connection:
            connection.execute("CREATE TABLE t AS SELECT 1 AS a")
        assert resources.workspace.workspace == workspace
        assert resources.registry.registry.models() == []
        assert [one.name for one in resources.warehouse.warehouse.tables()] == ["t"]

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        resources = resources_for(workspace)
        assert isinstance(resources["warehouse"], DuckDBResource)
        assert dg.materialize([table], resources=resources, instance=instance, run_config=quiet).success
    assert Warehouse.of(workspace).exists("t")


def test_a_failing_asset_lets_the_file_go(workspace: Workspace) -> None:
    resource = resources_for(workspace)["warehouse"]
    kept = None
    try:
        with resource.get_connection() as connection:
            connection.execute("CREATE TABLE t AS SELECT 1 AS a")
            1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        kept = error  # as a notebook keeps it, and with it the frame that has the connection
    assert kept is not None
    assert not Warehouse.of(workspace).exists("t")  # answered at once, and nothing is half done


def test_settings_reach_the_resource(workspace: Workspace) -> None:
    workspace.settings_path.write_text("[warehouse]\nthreads = 1\n", encoding="utf-8")
    resource = resources_for(Workspace(workspace.root))["warehouse"]
    with resource.get_connection() as connection:
        assert connection.execute("SELECT current_setting('threads')").fetchall() == [(1,)]
    assert str(workspace.data) in resource.allowed_directories
