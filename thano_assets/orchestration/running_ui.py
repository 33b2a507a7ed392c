"""A running ``thano ui``: where it is, and that it has to load the catalog again."""

from __future__ import annotations

import json
import threading
import urllib.request
from pathlib import Path

from thano_assets.orchestration.dagster_compat import LOCATION_NAME
from thano_assets.resources.workspace import Workspace
from thano_assets.system import process_alive


def running(workspace: Workspace) -> dict[str, str | int] | None:
    """What ``ui.json`` says (``dagster`` and ``mlflow``: addresses; ``location``; ``pid``), if true now."""
    try:
        told = json.loads((workspace.dagster_home / "ui.json").read_text(encoding="utf-8"))
        alive = process_alive(int(told["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(told) if alive else None


def reload_user_interface(workspace: Workspace) -> None:
    """Tell a running ``thano ui`` that the catalog changed; in the background, and never an error."""
    address_file = workspace.dagster_home / "ui.json"
    if not address_file.is_file():
        return
    threading.Thread(target=_reload, args=(address_file,), name="thano-ui-reload", daemon=False).start()


def _reload(address_file: Path) -> None:
    query = (
        "mutation($name: String!){ reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
    )
    try:
        address = json.loads(address_file.read_text(encoding="utf-8"))["dagster"]
        request = urllib.request.Request(
            f"{address.rstrip('/')}/graphql",
            data=json.dumps({"query": query, "variables": {"name": LOCATION_NAME}}).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=15).close()
    except (OSError, ValueError, KeyError):
        return  # the page shows the change at its next reload
