"""A catalog as it will be, for plans and for environments: the files' entries with others in their place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from thano_assets.catalog.entries import Entry, EntryKind, is_about


class Entries(Protocol):
    """What binding a statement needs to know of a catalog."""

    def entries(self) -> list[Entry]:
        """Every entry."""

    def relation(self, name: str) -> Entry | None:
        """The entry that makes the table ``name``."""

    def model(self, name: str) -> Entry | None:
        """The entry that makes the model ``name``."""

    def expectations(self, table: str) -> list[Entry]:
        """The entries of the EXPECT statements about ``table``."""

    def names(self, *kinds: EntryKind) -> list[str]:
        """The names of the entries of ``kinds`` (all, where none is given), sorted."""


def overlaid(entries: Iterable[Entry], new: Iterable[Entry]) -> list[Entry]:
    """The entries with ``new`` in place of those whose names they take."""
    new = list(new)
    taken = {_name(entry) for entry in new}
    return [entry for entry in entries if _name(entry) not in taken] + new


def _name(entry: Entry) -> tuple[str, str]:
    space = "relation" if entry.kind.is_relation else entry.kind.value
    return space, entry.name.casefold()


class _Nothing:
    """A catalog without entries."""

    def entries(self) -> list[Entry]:
        return []

    def relation(self, name: str) -> Entry | None:
        return None

    def model(self, name: str) -> Entry | None:
        return None

    def expectations(self, table: str) -> list[Entry]:
        return []

    def names(self, *kinds: EntryKind) -> list[str]:
        return []


class Overlay:
    """A catalog's entries with changes in memory; no file changes."""

    def __init__(self, catalog: Entries) -> None:
        self._catalog = catalog
        self._changed: dict[tuple[str, str], Entry | None] = {}

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Overlay:
        """A catalog of nothing but ``entries``."""
        overlay = cls(_Nothing())
        overlay.put(entries)
        return overlay

    def entries(self) -> list[Entry]:
        """Every entry."""
        kept = [entry for entry in self._catalog.entries() if _name(entry) not in self._changed]
        return kept + [entry for entry in self._changed.values() if entry is not None]

    def names(self, *kinds: EntryKind) -> list[str]:
        """The names of the entries of ``kinds`` (all, where none is given), sorted."""
        wanted = kinds or tuple(EntryKind)
        found = {
            name
            for kind in wanted
            for name in self._catalog.names(kind)
            if _name(Entry(kind, name, "")) not in self._changed
        }
        found.update(entry.name for entry in self._changed.values() if entry and entry.kind in wanted)
        return sorted(found)

    def relation(self, name: str) -> Entry | None:
        """The entry that makes the table ``name``, if there is one."""
        key = ("relation", name.casefold())
        return self._changed[key] if key in self._changed else self._catalog.relation(name)

    def model(self, name: str) -> Entry | None:
        """The entry that makes the model ``name``, if there is one."""
        key = (EntryKind.MODEL.value, name.casefold())
        return self._changed[key] if key in self._changed else self._catalog.model(name)

    def expectations(self, table: str) -> list[Entry]:
        """The entries of the EXPECT statements about ``table``."""
        kept = [entry for entry in self._catalog.expectations(table) if _name(entry) not in self._changed]
        return kept + [
            entry
            for entry in self._changed.values()
            if entry is not None and entry.kind is EntryKind.CHECK and is_about(entry, table)
        ]

    def put(self, entries: Iterable[Entry]) -> None:
        """Take ``entries`` in, in place of those whose names they take."""
        for entry in entries:
            self._changed[_name(entry)] = entry

    def remove(self, kind: EntryKind, name: str) -> None:
        """Leave an entry out."""
        self._changed[_name(Entry(kind, name, ""))] = None
