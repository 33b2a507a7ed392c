"""Being stopped is told from failing."""

from __future__ import annotations

from thano_assets.stopping import was_stopped


def test_an_error_among_its_own_causes_is_looked_through_once() -> None:
    first, second = ValueError("first"), RuntimeError("second")
    first.__context__, second.__cause__ = second, first
    assert not was_stopped(first)
    second.__cause__ = KeyboardInterrupt()
    assert was_stopped(first)
