"""What running statements will do, and why: bound to what is there, decided before anything is changed."""

from __future__ import annotations

from thano_assets.planning.plan import Action, Mode, PlannedAsset, Planning, Record

__all__ = ["Action", "Mode", "PlannedAsset", "Planning", "Record"]
