"""The files of a workspace's Dagster instance: ``dagster.yaml`` follows ``thano.toml``.

``workspace.yaml`` is the user's, who may add code locations to it.
``DAGSTER_HOME`` is the folder ``dagster/`` of the workspace.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import current

if TYPE_CHECKING:
    from .settings import QueueSettings

#: Pools of Dagster: what a run waits for when as many others as [queue] allows are at the same kind of work.
TRAINING, INFERENCE = "training", "inference"

_MARK = "# Written from [queue] of thano.toml. Delete this line to keep your own changes.\n"
# The file as earlier releases wrote it, which nobody changed.
_FORMER = {"709dc6916a4af8a463152d2946c0e4dc8453a7f04008a28a8b9fd11afa91e225"}

_DAGSTER_YAML = """\
# The Dagster instance of this workspace; DAGSTER_HOME is this folder, where SQLite files, logs and
# artifacts are kept too.
telemetry:
  enabled: false
nux:
  enabled: false
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
concurrency:
  runs:
    max_concurrent_runs: {runs}
  # The pools "training" and "inference"; their limits are set when `thano ui` starts.
  pools:
    granularity: run
scheduler:
  module: dagster.core.scheduler
  class: DagsterDaemonScheduler
  config:
    max_tick_retries: {max_tick_retries}
# A launched run whose process dies is marked as failed and gives its place in the queue back.
run_monitoring:
  enabled: true
  start_timeout_seconds: {start_timeout_seconds}
  cancel_timeout_seconds: 60
  poll_interval_seconds: 5
  free_slots_after_run_end_seconds: 60
"""

_LOCATION = """\
  - python_module:
      module_name: thano_assets.definitions
      location_name: thano_assets
"""
_WORKSPACE_YAML = f"""\
# The code locations that `thano ui` shows. Add your own below: the file stays as you leave it.
load_from:
{_LOCATION}"""


def dagster_yaml(settings: QueueSettings) -> str:
    """The text of ``dagster.yaml``."""
    return _MARK + _DAGSTER_YAML.format(**vars(settings))


def update_dagster_yaml(home: Path, settings: QueueSettings) -> None:
    """Bring ``dagster.yaml`` in line with the settings; one that the user took over is left as it is."""
    path, wanted = home / "dagster.yaml", dagster_yaml(settings)
    text = path.read_text(encoding="utf-8") if path.exists() else None
    if text == wanted:
        return
    if text is None or text.startswith(_MARK) or hashlib.sha256(text.encode()).hexdigest() in _FORMER:
        path.write_text(wanted, encoding="utf-8")
    else:
        current().message(
            f"{path} is your own: runs, max_tick_retries and start_timeout_seconds are as it says."
        )


def update_workspace_yaml(home: Path) -> Path:
    """Make ``workspace.yaml``, or add Thano's code location to it; returns its path. All else stays."""
    path = home / "workspace.yaml"
    text = path.read_text(encoding="utf-8") if path.exists() else _WORKSPACE_YAML
    # Earlier releases wrote the folder of the workspace down, which may have been moved since.
    text = re.sub(r"(location_name: thano_assets\n) +working_directory: .*\n", r"\1", text)
    if "thano_assets.definitions" not in text:
        text = re.sub(r"^load_from:[^\S\n]*\n", lambda found: found[0] + _LOCATION, text, count=1, flags=re.M)
    if not path.exists() or text != path.read_text(encoding="utf-8"):
        path.write_text(text, encoding="utf-8")
    return path
