"""What Dagster's event log says of an asset's latest materialization: the memory that plans compare with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from thano_assets.graph.build import Key
from thano_assets.planning.plan import Record

__all__ = ["DETAILS", "STATEMENT", "Record", "data_version", "read_records", "report", "report_again"]

#: Label of the metadata that plans read back; everything else on an asset's page is for people.
DETAILS = "thano/details"
#: The statement's text among them; older records have it as a label of its own.
STATEMENT = "statement"
_OLD_STATEMENT = "thano/statement"

_DATA_VERSION = "dagster/data_version"
_CODE_VERSION = "dagster/code_version"
_INPUT_PREFIX = "dagster/input_data_version/"
# Where in the log the input was; Dagster takes an input without it for a new one.
_POINTER_PREFIX = "dagster/input_event_pointer/"
_BY_USER = "dagster/data_version_is_user_provided"


def read_records(instance: dg.DagsterInstance, keys: Iterable[Key]) -> dict[Key, Record]:
    """The records of those of ``keys`` that were materialized before, in one query."""
    wanted = [dg.AssetKey(list(key)) for key in dict.fromkeys(keys)]
    if not wanted:
        return {}
    found = {}
    for asset in instance.get_asset_records(wanted):
        entry = asset.asset_entry.last_materialization
        if entry is not None and (record := _record(entry)) is not None:
            found[record.key] = record
    return found


def data_version(instance: dg.DagsterInstance, key: Key) -> str | None:
    """The data version of what was last made of ``key``, where it was made before."""
    record = read_records(instance, [key]).get(key)
    return None if record is None else record.data_version


def _record(entry: Any) -> Record | None:
    materialization = entry.asset_materialization
    path = materialization.asset_key.path
    tags = materialization.tags or {}
    if len(path) != 2 or _DATA_VERSION not in tags:
        return None
    metadata = {name: getattr(value, "value", None) for name, value in materialization.metadata.items()}
    inputs = {}
    for tag, version in tags.items():
        if tag.startswith(_INPUT_PREFIX):
            key = dg.AssetKey.from_user_string(tag.removeprefix(_INPUT_PREFIX)).path
            if len(key) == 2:
                inputs[key[0], key[1]] = version
    details = metadata.get(DETAILS)
    details = dict(details) if isinstance(details, dict) else {}
    statement = details.pop(STATEMENT, None) or metadata.get(_OLD_STATEMENT)
    seconds, rows = metadata.get("seconds"), metadata.get("dagster/row_count")
    return Record(
        key=(path[0], path[1]),
        data_version=tags[_DATA_VERSION],
        code_version=tags.get(_CODE_VERSION),
        inputs=inputs,
        statement=statement,
        details=details,
        rows=rows if isinstance(rows, int) else None,
        summary=str(metadata.get("summary") or ""),
        seconds=float(seconds) if isinstance(seconds, (int, float)) else None,
        run_id=entry.run_id,
        time=datetime.fromtimestamp(entry.timestamp, UTC),
    )


def report(
    instance: dg.DagsterInstance,
    key: Key,
    *,
    data_version: str,
    code_version: str | None = None,
    inputs: Mapping[Key, str] | None = None,
    statement: str | None = None,
    details: Mapping[str, Any] | None = None,
    rows: int | None = None,
    why: str,
) -> None:
    """Record a new state of ``key`` that no run made: a promotion, or what an environment borrows.

    Dagster's marks follow it: what read the older data version is out of date from now on.
    """
    tags = {_DATA_VERSION: data_version, _BY_USER: "true"}
    if code_version is not None:
        tags[_CODE_VERSION] = code_version
    for read, version in (inputs or {}).items():
        name = dg.AssetKey(list(read)).to_user_string()
        tags |= {_INPUT_PREFIX + name: version, _POINTER_PREFIX + name: "NULL"}
    metadata: dict[str, Any] = {"summary": why}
    if rows is not None:
        metadata["dagster/row_count"] = rows
    if details or statement is not None:
        metadata[DETAILS] = dict(details or {}) | ({STATEMENT: statement} if statement is not None else {})
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key=dg.AssetKey(list(key)), metadata=metadata, tags=tags)
    )


def report_again(instance: dg.DagsterInstance, record: Record, *, data_version: str, why: str) -> None:
    """Record that ``record``'s asset has another content now, everything else as it was."""
    report(
        instance,
        record.key,
        data_version=data_version,
        code_version=record.code_version,
        inputs=record.inputs,
        statement=record.statement,
        details=record.details,
        rows=record.rows,
        why=why,
    )
