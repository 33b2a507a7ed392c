"""What changed from one statement to another, in words that a plan shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thano_assets.errors import ThanoError
from thano_assets.sql import parse
from thano_assets.sql.options import OPTION_SPECS
from thano_assets.sql.query import Query
from thano_assets.sql.statements import (
    BuildModel,
    Copy,
    CreateTableAs,
    FitModel,
    ModelQuery,
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


#: Subjects of a :class:`Change`; others are names of options.
STATEMENT, QUERY, SOURCE, BASE, MODEL = "statement", "query", "source", "base model", "model"


@dataclass(frozen=True)
class Change:
    """A part of a statement that differs: which one, and how, in words."""

    subject: str
    text: str


_STATEMENT_CHANGED = Change(STATEMENT, "the statement changed")
_QUERY_CHANGED = Change(QUERY, "the query changed")


def statement_changes(then: str | None, now: str) -> list[Change]:
    """What differs between two texts of an entry's statements, part by part; empty where they mean the same.

    Args:
        then: The text that made the asset; ``None`` or unreadable where nobody knows it.
        now: The text as it is.
    """
    try:
        before, after = parse(then or ""), parse(now)
    except ThanoError:
        return [_STATEMENT_CHANGED]
    if not before:
        return [_STATEMENT_CHANGED]
    if len(before) != len(after):
        more, fewer = len(after) - len(before), len(before) - len(after)
        if [s.canonical() for s in after[: len(before)]] == [s.canonical() for s in before]:
            return [Change(STATEMENT, f"{more} more COPY … append")]
        if [s.canonical() for s in before[: len(after)]] == [s.canonical() for s in after]:
            return [Change(STATEMENT, f"{fewer} COPY … append fewer")]
        return [Change(STATEMENT, "the statements changed")]
    return [
        change
        for old, new in zip(before, after, strict=True)
        if old.canonical() != new.canonical()
        for change in _changes(old, new)
    ]


def _changes(old: Statement, new: Statement) -> list[Change]:
    if isinstance(old, CreateTableAs) and isinstance(new, CreateTableAs):
        if isinstance(old.body, Query) and isinstance(new.body, Query):
            return [_QUERY_CHANGED]
        if isinstance(old.body, Statement) and isinstance(new.body, Statement):
            return _changes(old.body, new.body) or [_STATEMENT_CHANGED]
    if type(old) is not type(new):
        return [Change(STATEMENT, f"the statement is {new.kind} now, not {old.kind}")]
    found: list[Change] = []
    match old, new:
        case Copy(), Copy():
            if old.path != new.path and old.path and new.path:
                found.append(Change(SOURCE, f"the path changed from '{old.path}' to '{new.path}'"))
            elif (old.path, old.rows_json) != (new.path, new.rows_json):
                inline = Change("rows", "the inline rows changed")
                found.append(inline if old.path is new.path else Change(SOURCE, "the source changed"))
        case UploadModel(), UploadModel():
            if old.path != new.path:
                found.append(Change(SOURCE, f"the path changed from '{old.path}' to '{new.path}'"))
        case BuildModel(), BuildModel():
            if old.base != new.base:
                found.append(Change(BASE, f"the base model changed from {old.base} to {new.base}"))
        case ModelQuery(), ModelQuery():
            if str(old.model) != str(new.model):
                found.append(Change(MODEL, f"the model changed from {old.model} to {new.model}"))
        case FitModel(), FitModel():
            if str(old.parent) != str(new.parent):
                found.append(Change(MODEL, f"the parent changed from {old.parent} to {new.parent}"))
    if old.option_kind != new.option_kind:  # the options of one are not those of the other
        was, is_now = (statement.options.get("objective", "classification") for statement in (old, new))
        changed = Change("objective", f"objective changed from '{was}' to '{is_now}'")
        return [*found, changed if was != is_now else _STATEMENT_CHANGED]
    found += _option_changes(old, new)
    then, now = old.rows_from, new.rows_from
    if then is not None and now is not None and then.canonical() != now.canonical():
        found.append(_QUERY_CHANGED)
    return found or [_STATEMENT_CHANGED]


def _option_changes(old: Statement, new: Statement) -> list[Change]:
    found = []
    for name, spec in OPTION_SPECS.get(new.option_kind, {}).items():
        then, now = old.options.value(name), new.options.value(name)
        if spec.identity and then != now:
            found.append(Change(name, f"{name} changed from {_value(then)} to {_value(now)}"))
    return found


def _value(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value if len(value) <= _SHOWN else value[: _SHOWN - 1] + '…'}'"
    return str(value)
