"""The resources as Dagster resources: what asset bodies ask for, and what the Dagster UI shows of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_duckdb import DuckDBResource
from pydantic import Field, PrivateAttr

from thano_assets.resources.environments import registry_of, workspace_at
from thano_assets.resources.registry import Registry
from thano_assets.resources.warehouse import Warehouse
from thano_assets.resources.workspace import Workspace

if TYPE_CHECKING:
    import duckdb


class WorkspaceResource(dg.ConfigurableResource):
    """The workspace folder."""

    root: str = Field(description="The workspace folder, absolute.")
    _workspace: Workspace | None = PrivateAttr(default=None)

    @property
    def workspace(self) -> Workspace:
        """Paths and settings."""
        if self._workspace is None:
            self._workspace = workspace_at(self.root)
        return self._workspace


class WarehouseResource(DuckDBResource):
    """dagster-duckdb's resource, over :class:`.warehouse.Warehouse`.

    Its own ``get_connection`` gives up after 103 s of waiting and keeps the file open when an asset fails;
    here it waits for its turn, says for whom, and always closes.
    """

    allowed_directories: list[str] = Field(default=[], description="Folders whose files SQL may reach.")
    memory_limit: str | None = Field(default=None, description="DuckDB's memory_limit, such as '4GB'.")
    threads: int | None = Field(default=None, description="DuckDB's threads.")
    borrows: str | None = Field(default=None, description="The database whose tables an environment reads.")
    _warehouse: Warehouse | None = PrivateAttr(default=None)

    @classmethod
    def _is_dagster_maintained(cls) -> bool:
        return False

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse, with its separate connections for reading and writing."""
        if self._warehouse is None:
            self._warehouse = Warehouse(
                self.database,
                allowed_directories=self.allowed_directories,
                memory_limit=self.memory_limit,
                threads=self.threads,
                borrows=self.borrows,
            )
        return self._warehouse

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that may write, closed when the block ends however it ends."""
        with self.warehouse.write() as connection:
            yield connection


class RegistryResource(dg.ConfigurableResource):
    """Models and training runs in MLflow, imported when something is written."""

    root: str = Field(description="The workspace folder, absolute.")
    _registry: Registry | None = PrivateAttr(default=None)

    @property
    def registry(self) -> Registry:
        """The registry of the workspace."""
        if self._registry is None:
            self._registry = registry_of(workspace_at(self.root))
        return self._registry


def resources_for(workspace: Workspace) -> dict[str, Any]:
    """The resources ``workspace``, ``warehouse`` and ``registry`` of a code location.

    Raises:
        WorkspaceError: the workspace's settings are broken.
    """
    warehouse = Warehouse.of(workspace)
    root = str(workspace.root)
    return {
        "workspace": WorkspaceResource(root=root),
        "warehouse": WarehouseResource(
            database=str(warehouse.path),
            allowed_directories=list(warehouse.allowed_directories),
            memory_limit=warehouse.memory_limit,
            threads=warehouse.threads,
            borrows=str(warehouse.borrows) if warehouse.borrows is not None else None,
        ),
        "registry": RegistryResource(root=root),
    }
