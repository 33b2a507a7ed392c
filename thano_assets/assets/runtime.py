"""What every asset body is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thano_assets.graph import Node
from thano_assets.graph.build import Key
from thano_assets.progress import SILENT, Progress
from thano_assets.resources.environments import registry_of

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.resources.registry import Registry
    from thano_assets.resources.warehouse import Column, Warehouse
    from thano_assets.resources.workspace import Workspace


@dataclass(frozen=True)
class Runtime:
    """The resources of one materialization, and where it reports to.

    ``incremental`` says that the run does only what a plan found to be out of date: a model version that
    was trained from the very same things is used again. Without it the person asked for the work itself.
    ``data_version`` tells the data version of an asset as Dagster's event log has it now; outside of a run
    it knows none.
    """

    workspace: Workspace
    warehouse: Warehouse
    registry: Registry
    progress: Progress
    run_id: str | None = None
    incremental: bool = False
    data_version: Callable[[Key], str | None] = field(default=lambda key: None)

    @classmethod
    def of(cls, workspace: Workspace, progress: Progress = SILENT) -> Runtime:
        """The resources of ``workspace`` outside of a run."""
        from thano_assets.resources.warehouse import Warehouse

        return cls(workspace, Warehouse.of(workspace), registry_of(workspace), progress)


@dataclass(frozen=True)
class CheckOutcome:
    """What an asset check found.

    Attributes:
        name: As in the check's specification.
        passed: Whether the asset may be used.
        description: One sentence: what was compared, and how it came out.
        facts: Figures and short texts for the check's page, by label.
        preview: Rows that show what is wrong.
        blocking: Whether nothing is made of the asset while the check fails. Otherwise it is a warning.
    """

    name: str
    passed: bool
    description: str
    facts: dict[str, Any] = field(default_factory=dict)
    preview: pa.Table | None = None
    blocking: bool = True


@dataclass
class Outcome:
    """What a materialization made.

    Attributes:
        data_version: Fingerprint of the content that was made.
        summary: One sentence for the person who asked.
        rows: Number of rows, where the asset has rows.
        columns: Column names and DuckDB types, where the asset has columns.
        preview: The first rows.
        facts: Figures and short texts for the asset's page, by label.
        pictures: PNG images, by label.
        links: Addresses, by label.
        texts: Markdown, by label.
        result: What the statement answers with, where that is not the asset's own rows.
        warnings: Sentences about what the person may want to change.
        mlflow_run_id: The MLflow run behind a model.
        details: What later plans compare with (plain JSON): file digests, the base model's identity, ….
        checks: What the asset's own checks found.
        column_lineage: For each column, the columns (of the asset with that key) that it is made from.
    """

    data_version: str
    summary: str
    rows: int | None = None
    columns: list[Column] | None = None
    preview: pa.Table | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    result: pa.Table | None = None
    warnings: list[str] = field(default_factory=list)
    mlflow_run_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    checks: list[CheckOutcome] = field(default_factory=list)
    column_lineage: dict[str, list[tuple[Key, str]]] = field(default_factory=dict)

    def warn(self, progress: Progress, text: str) -> None:
        """Keep a warning in the result and show it now."""
        self.warnings.append(text)
        progress.warning(text)


_outcomes: ContextVar[dict[Key, Outcome] | None] = ContextVar("thano_outcomes", default=None)


@contextmanager
def collecting_outcomes(outcomes: dict[Key, Outcome]) -> Iterator[None]:
    """Put what the assets made in this context give back into ``outcomes``, as it comes."""
    token = _outcomes.set(outcomes)
    try:
        yield
    finally:
        _outcomes.reset(token)


def made_in_this_run(key: Key) -> Outcome | None:
    """What an earlier step of the same run made of ``key``, where the run is in the caller's process."""
    outcomes = _outcomes.get()
    return None if outcomes is None else outcomes.get(key)


def keep_outcome(node: Node, outcome: Outcome) -> None:
    """Hand ``outcome`` to whoever collects in this context; in a run of the Dagster UI nobody does."""
    outcomes = _outcomes.get()
    if outcomes is not None:
        outcomes[node.key] = outcome
