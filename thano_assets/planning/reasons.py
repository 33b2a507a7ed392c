"""What changed from one statement to another, in words that a plan shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thano_assets.errors import ThanoError
from thano_assets.sql import parse
from thano_assets.sql.options import OPTION_SPECS
from thano_assets.sql.statements import (
    BuildModel,
    Copy,
    CreateTableAs,
    FitModel,
    ModelQuery,
    Query,
    Statement,
    UploadModel,
)

_SHOWN = 60


@dataclass(frozen=True)
class RowChange:
    """How the rows of a table differ from what they were.

    Attributes:
        added: Rows that were not there.
        removed: Rows that are there no more.
        columns: Columns that came or went, or changed their type; rows are not compared then.
    """

    added: int = 0
    removed: int = 0
    columns: tuple[str, ...] = ()

    def of(self, name: str) -> str:
        """``12 rows of train.csv changed``."""
        if self.columns:
            return f"the columns of {name} changed ({', '.join(self.columns[:4])})"
        changed = min(self.added, self.removed)
        added, removed = self.added - changed, self.removed - changed
        parts = [
            f"{count:,} {'row' if count == 1 else 'rows'} {verb}"
            for count, verb in ((changed, "changed"), (added, "added"), (removed, "removed"))
            if count
        ]
        if not parts:
            return f"{name} changed, its rows did not"
        count, noun, verb = parts[0].split(" ")
        return ", ".join([f"{count} {noun} of {name} {verb}", *parts[1:]])


def file_change(then: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Which files changed, came or went, by name and digest; ``None`` where none did."""
    changed = sorted(name for name in now if name in then and now[name] != then[name])
    came = sorted(set(now) - set(then))
    went = sorted(set(then) - set(now))
    if came and went and sorted(now[name] for name in came) == sorted(then[name] for name in went):
        came = went = []  # the same contents under other names
    parts = [
        f"{_listed(names)} {verb}"
        for names, verb in ((changed, "changed"), (came, "added"), (went, "removed"))
        if names
    ]
    return ", ".join(parts) or None


def _listed(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{len(names)} files ({', '.join(names[:3])}{', …' if names[3:] else ''})"


def statement_changes(then: str | None, now: str) -> list[str]:
    """What differs between two texts of an entry's statements, part by part; empty where they mean the same.

    Args:
        then: The text that made the asset; ``None`` or unreadable where nobody knows it.
        now: The text as it is.
    """
    try:
        before, after = parse(then or ""), parse(now)
    except ThanoError:
        return ["the statement changed"]
    if not before:
        return ["the statement changed"]
    if len(before) != len(after):
        more, fewer = len(after) - len(before), len(before) - len(after)
        if [s.canonical() for s in after[: len(before)]] == [s.canonical() for s in before]:
            return [f"{more} more COPY … append"]
        if [s.canonical() for s in before[: len(after)]] == [s.canonical() for s in after]:
            return [f"{fewer} COPY … append fewer"]
        return ["the statements changed"]
    return [
        words
        for old, new in zip(before, after, strict=True)
        if old.canonical() != new.canonical()
        for words in _changes(old, new)
    ]


def _changes(old: Statement, new: Statement) -> list[str]:
    if isinstance(old, CreateTableAs) and isinstance(new, CreateTableAs):
        if isinstance(old.body, Query) and isinstance(new.body, Query):
            return ["the query changed"]
        if isinstance(old.body, Statement) and isinstance(new.body, Statement):
            return _changes(old.body, new.body) or ["the statement changed"]
    if type(old) is not type(new):
        return [f"the statement is {new.kind} now, not {old.kind}"]
    found = []
    match old, new:
        case Copy(), Copy():
            if old.path != new.path and old.path and new.path:
                found.append(f"the path changed from '{old.path}' to '{new.path}'")
            elif (old.path, old.rows_json) != (new.path, new.rows_json):
                found.append("the inline rows changed" if old.path is new.path else "the source changed")
        case UploadModel(), UploadModel():
            if old.path != new.path:
                found.append(f"the path changed from '{old.path}' to '{new.path}'")
        case BuildModel(), BuildModel():
            if old.base != new.base:
                found.append(f"the base model changed from {old.base} to {new.base}")
        case (
            (ModelQuery()),
            (ModelQuery()),
        ):
            if str(old.model) != str(new.model):
                found.append(f"the model changed from {old.model} to {new.model}")
        case FitModel(), FitModel():
            if str(old.parent) != str(new.parent):
                found.append(f"the parent changed from {old.parent} to {new.parent}")
    if old.option_kind != new.option_kind:  # the options of one are not those of the other
        was, is_now = (statement.options.get("objective", "classification") for statement in (old, new))
        words = f"objective changed from '{was}' to '{is_now}'" if was != is_now else "the statement changed"
        return [*found, words]
    found += _option_changes(old, new)
    then, now = getattr(old, "query", None), getattr(new, "query", None)
    if isinstance(then, Query) and isinstance(now, Query) and then.canonical() != now.canonical():
        found.append("the query changed")
    return found or ["the statement changed"]


def _option_changes(old: Statement, new: Statement) -> list[str]:
    found = []
    for name, spec in OPTION_SPECS.get(new.option_kind, {}).items():
        then, now = old.options.value(name), new.options.value(name)
        if spec.identity and then != now:
            found.append(f"{name} changed from {_value(then)} to {_value(now)}")
    return found


def _value(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value if len(value) <= _SHOWN else value[: _SHOWN - 1] + '…'}'"
    return str(value)
