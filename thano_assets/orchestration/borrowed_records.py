"""What an environment knows of assets that it has not made: production's records of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import dagster as dg

from thano_assets.graph.build import Key
from thano_assets.orchestration import records
from thano_assets.orchestration.dagster_compat import open_instance
from thano_assets.orchestration.records import Record
from thano_assets.resources.workspace import Workspace

#: Stands in the details of what :func:`note_borrowed` reports.
_MARK = "borrowed"


def is_borrowed(record: Record) -> bool:
    """Whether production made what the record tells of."""
    return record.borrowed or bool(record.details.get(_MARK))


def borrowed_records(workspace: Workspace, keys: Iterable[Key]) -> dict[Key, Record]:
    """Production's records of those of ``keys`` that it has made; none outside an environment."""
    wanted = list(keys)
    if not wanted:
        return {}
    with _production(workspace) as read:
        return read(wanted)


@contextmanager
def _production(workspace: Workspace) -> Iterator[Callable[[Iterable[Key]], dict[Key, Record]]]:
    """What reads records from production's Dagster instance; it finds none where there is no such thing."""
    lender = workspace.production
    # Before its first run there is nothing to borrow, and making its databases is production's own affair.
    if lender is None or not (lender.dagster_home / ".ready").is_file():
        yield lambda keys: {}
        return
    with open_instance(lender.dagster_home) as instance:
        yield lambda keys: {
            key: replace(record, borrowed=True)
            for key, record in records.read_records(instance, keys).items()
        }


def with_borrowed(workspace: Workspace, own: Mapping[Key, Record], keys: Iterable[Key]) -> dict[Key, Record]:
    """``own`` records and, where the environment made nothing, production's as they are now.

    What :func:`note_borrowed` left in ``own`` counts for nothing: production may have made the asset again.
    """
    if workspace.production is None:
        return dict(own)
    made = {key: record for key, record in own.items() if not is_borrowed(record)}
    return made | borrowed_records(workspace, [key for key in keys if key not in made])


def note_borrowed(workspace: Workspace, instance: dg.DagsterInstance, keys: Iterable[Key]) -> None:
    """Tell the environment's Dagster of the borrowed ``keys``, and of what they stand on, before a run.

    Dagster keeps with each asset the data versions of what it read, as its own instance knows them.
    """
    if workspace.production is None:
        return
    seen: set[Key] = set()
    waiting = set(keys)
    with _production(workspace) as read:
        while waiting:
            seen |= waiting
            own = records.read_records(instance, waiting)
            lent = read([key for key in waiting if key not in own or is_borrowed(own[key])])
            for key, record in lent.items():
                if key not in own or _versions(own[key]) != _versions(record):
                    marked = replace(record, details={**record.details, _MARK: True})
                    why = "borrowed from production"
                    records.report_again(instance, marked, data_version=record.data_version, why=why)
            waiting = {upstream for record in lent.values() for upstream in record.inputs} - seen


def _versions(record: Record) -> tuple[object, ...]:
    return record.data_version, record.code_version, dict(record.inputs)
