"""What the assets' tests share with the session's: a workspace with a base model that trains in a second."""

from __future__ import annotations

from tests.session.conftest import session, small_workspace, told

__all__ = ["session", "small_workspace", "told"]
