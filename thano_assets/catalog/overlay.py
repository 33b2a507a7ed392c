"""A catalog as it will be, for plans: the files' entries with others in their place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from thano_assets.catalog.entries import Entry, EntryKind


class Entries(Protocol):
    """What binding a statement needs to know of a catalog."""

    def entries(self) -> list[Entry]:
        """Every entry."""

    def relation(self, name: str) -> Entry | None:
        """The entry that makes the table ``name``."""

    def model(self, name: str) -> Entry | None:
        """The entry that makes the model ``name``."""


def overlaid(entries: Iterable[Entry], new: Iterable[Entry]) -> list[Entry]:
    """The entries with ``new`` in place of those whose names they take."""
    new = list(new)
    taken = {_name(entry) for entry in new}
    return [entry for entry in entries if _name(entry) not in taken] + new


def _name(entry: Entry) -> tuple[bool, str]:
    return entry.kind.is_relation, entry.name.casefold()


class Overlay:
    """Entries in memory, begun from a catalog's; changing it changes no file."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = list(entries)

    def entries(self) -> list[Entry]:
        """Every entry."""
        return list(self._entries)

    def relation(self, name: str) -> Entry | None:
        """The entry that makes the table ``name``, if there is one."""
        return self._find(True, name)

    def model(self, name: str) -> Entry | None:
        """The entry that makes the model ``name``, if there is one."""
        return self._find(False, name)

    def _find(self, relation: bool, name: str) -> Entry | None:
        return next((entry for entry in self._entries if _name(entry) == (relation, name.casefold())), None)

    def put(self, entries: Iterable[Entry]) -> None:
        """Take ``entries`` in, in place of those whose names they take."""
        self._entries = overlaid(self._entries, entries)

    def remove(self, kind: EntryKind, name: str) -> None:
        """Leave an entry out."""
        self._entries = [
            entry for entry in self._entries if _name(entry) != (kind.is_relation, name.casefold())
        ]
