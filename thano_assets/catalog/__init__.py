"""The catalog: every statement that defines an asset, kept as a readable ``.sql`` file."""

from __future__ import annotations

from thano_assets.catalog.entries import Entry, entry_of
from thano_assets.catalog.environment import catalog_of
from thano_assets.catalog.kinds import EntryKind
from thano_assets.catalog.store import Catalog

__all__ = ["Catalog", "Entry", "EntryKind", "catalog_of", "entry_of"]
