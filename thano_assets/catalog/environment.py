"""The catalog of an environment: its own files, and production's where it has none of the name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from thano_assets.catalog.entries import Entry, EntryKind
from thano_assets.catalog.overlay import overlaid
from thano_assets.catalog.store import Catalog
from thano_assets.errors import BorrowedAsset


class _Place(Protocol):
    """What of a workspace tells where its statements are."""

    @property
    def statements(self) -> Path:
        """Its own."""

    @property
    def production(self) -> _Place | None:
        """The workspace that it borrows from."""


class EnvironmentCatalog(Catalog):
    """Entries under ``root``, in front of those of ``production``, which are read and never changed.

    A table of the environment hides production's table of that name, whatever kind of statement makes either.
    """

    def __init__(self, root: Path, production: Catalog) -> None:
        super().__init__(root)
        self.production = production

    def entries(self) -> list[Entry]:
        """Every entry, own and borrowed, ordered by kind and name."""
        order = list(EntryKind)
        found = overlaid(self.production.entries(), super().entries())
        return sorted(found, key=lambda entry: (order.index(entry.kind), entry.name))

    def own_entries(self) -> list[Entry]:
        """The entries that the environment has itself."""
        return super().entries()

    def is_own(self, kind: EntryKind, name: str) -> bool:
        """Whether the environment itself has that entry."""
        return self._find(kind, name) is not None

    def names(self, *kinds: EntryKind) -> list[str]:
        """The names of the entries of ``kinds`` (all, where none is given), sorted."""
        found = {
            name
            for kind in kinds or tuple(EntryKind)
            for name in self.production.names(kind)
            if not self._hides(kind, name)
        }
        return sorted(found | set(super().names(*kinds)))

    def relation(self, name: str) -> Entry | None:
        """The entry that makes the warehouse table ``name``, if there is one."""
        own = [super(EnvironmentCatalog, self).get(kind, name) for kind in EntryKind if kind.is_relation]
        return next((entry for entry in own if entry is not None), None) or self.production.relation(name)

    def get(self, kind: EntryKind, name: str) -> Entry | None:
        """The entry of that kind and name, ``None`` where there is none."""
        own = super().get(kind, name)
        return own if own is not None or self._hides(kind, name) else self.production.get(kind, name)

    def _hides(self, kind: EntryKind, name: str) -> bool:
        """Whether an own entry stands in front of production's of that kind and name."""
        kinds = [one for one in EntryKind if one is kind or (one.is_relation and kind.is_relation)]
        return any(self._find(one, name) is not None for one in kinds)

    def remove(self, kind: EntryKind, name: str) -> bool:
        """Forget the own entry; tells whether there was one.

        Raises:
            BorrowedAsset: only production has it.
        """
        if super().remove(kind, name):
            return True
        if not self._hides(kind, name) and self.production.get(kind, name) is not None:
            what = {EntryKind.MODEL: "model", EntryKind.CHECK: "expectation"}.get(kind, "table")
            raise BorrowedAsset.of(f"{what} {name}")
        return False


def catalog_of(workspace: _Place) -> Catalog:
    """The catalog of a workspace or an environment."""
    production = workspace.production
    if production is None:
        return Catalog(workspace.statements)
    return EnvironmentCatalog(workspace.statements, Catalog(production.statements))
