"""What the assets' tests share with the session's: a workspace with a base model that trains in a second."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from tests.session.conftest import session, small_workspace, told

__all__ = ["session", "small_workspace", "told"]

_LARGE = ("dagster", "mlflow", "torch", "transformers")


@pytest.fixture(scope="session")
def _thawed_at_the_end() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _libraries_are_not_looked_through(_thawed_at_the_end: None) -> None:
    """Accelerate collects garbage after each training: with these libraries' objects that takes a second."""
    if not gc.get_freeze_count() and all(name in sys.modules for name in _LARGE):
        gc.collect()
        gc.freeze()
