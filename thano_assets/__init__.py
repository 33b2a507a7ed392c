"""Thano: SQL in, assets out.

``thano_assets.session.Session`` is the door for programs, ``thano`` the command, and
``%load_ext thano_assets`` gives notebooks the ``%thanosql`` and ``%%thanosql`` magics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Answer ``%load_ext thano_assets``: register the magics and say that they are there."""
    from thano_assets.interfaces import notebook

    notebook.load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Answer ``%unload_ext thano_assets``: close the session and take the magics away."""
    from thano_assets.interfaces import notebook

    notebook.unload(shell)
