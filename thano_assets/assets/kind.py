"""What the rest of the program asks of a kind of asset; each kind's module states it once, as ``KIND``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.column_lineage import ColumnLineage
from thano_assets.graph import Node, NodeKind

if TYPE_CHECKING:
    import duckdb

    from thano_assets.resources.model_version import ModelVersion
    from thano_assets.resources.warehouse import Column
    from thano_assets.sql.statements import ModelQuery, TrainModel


@dataclass(frozen=True)
class AskedModel:
    """What is known, before a run, of the model that a statement asks.

    Attributes:
        version: That will answer; ``None`` where the model is yet to be made.
        made_by: The statement that makes it in the same run, if it trains one.
        of_tables: Whether it reads columns, not texts.
    """

    version: ModelVersion | None
    made_by: TrainModel | None
    of_tables: bool


@dataclass(frozen=True)
class Reads:
    """What a statement's rows are, and how to ask about them before a run.

    Attributes:
        sql: The rows, as DuckDB understands them on ``connection``.
        connection: With what the plan tried out.
        count: How many rows a relation has, written in SQL.
    """

    sql: str
    connection: duckdb.DuckDBPyConnection
    count: Callable[[str], int]


@dataclass(frozen=True)
class AssetKind:
    """A kind of asset.

    Attributes:
        kind: Its place in keys and catalog.
        materialize: Makes the asset of a node.
        description: What an asset of the kind is, by its node.
        icons: Names of Dagster's icons, by its node.
        pool: Of runs that share a limit, such as :data:`~thano_assets.resources.dagster_home.TRAINING`.
        lineage: Where each of the columns that a node now has comes from.
        check_columns: Raises what speaks against a statement's options, by the columns of its query.
        texts_to_run: Texts (or rows) that a statement will send through its model; ``None``: unknown.
    """

    kind: NodeKind
    materialize: Callable[[Node, Runtime], Outcome]
    description: Callable[[Node], str]
    icons: Callable[[Node], frozenset[str]]
    pool: str | None = None
    lineage: Callable[[Node, Sequence[str], Runtime], ColumnLineage] = lambda node, columns, runtime: {}
    check_columns: Callable[[Any, list[Column], AskedModel | None, Runtime], None] = (
        lambda statement, columns, asked, runtime: None
    )
    texts_to_run: Callable[[Any, Reads, Runtime], int | None] = lambda statement, reads, runtime: None


def described(text: str) -> Callable[[Node], str]:
    """A description in which ``{name}`` stands for the asset's name."""
    return lambda node: text.format(name=node.name)


def shown_as(*icons: str) -> Callable[[Node], frozenset[str]]:
    """The same icons for each asset."""
    return lambda node: frozenset(icons)


def answering(statement: ModelQuery, runtime: Runtime) -> ModelVersion | None:
    """The version that would answer a statement now."""
    ref = statement.model
    return runtime.registry.resolve(ref.name, version=ref.version, alias=ref.alias)
