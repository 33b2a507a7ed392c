"""``dagster.yaml`` follows thano.toml, ``workspace.yaml`` keeps what a user adds."""

from __future__ import annotations

import dagster as dg
import yaml

from thano_assets.resources.dagster_home import update_dagster_yaml, update_workspace_yaml
from thano_assets.resources.settings import QueueSettings
from thano_assets.resources.workspace import Workspace


def test_dagster_reads_what_the_settings_say(workspace: Workspace) -> None:
    update_dagster_yaml(workspace.dagster_home, QueueSettings(runs=7, max_tick_retries=2))
    with dg.DagsterInstance.from_config(str(workspace.dagster_home)) as instance:
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 7
        assert instance.scheduler.max_tick_retries == 2
        assert instance.run_monitoring_start_timeout_seconds == 50


def test_a_file_that_the_user_took_over_stays(workspace: Workspace) -> None:
    path = workspace.dagster_home / "dagster.yaml"
    own = path.read_text(encoding="utf-8").split("\n", 1)[1]
    path.write_text(own, encoding="utf-8")
    update_dagster_yaml(workspace.dagster_home, QueueSettings(runs=7))
    assert path.read_text(encoding="utf-8") == own


def test_a_code_location_that_the_user_adds_stays(workspace: Workspace) -> None:
    path = update_workspace_yaml(workspace.dagster_home)
    own = path.read_text(encoding="utf-8") + "  - python_file: own.py\n"
    path.write_text(own, encoding="utf-8")
    update_workspace_yaml(workspace.dagster_home)
    assert path.read_text(encoding="utf-8") == own


def test_a_file_of_an_earlier_release_loses_its_path_and_an_own_one_gets_the_location(
    workspace: Workspace,
) -> None:
    path = workspace.dagster_home / "workspace.yaml"
    path.write_text(
        "load_from:\n  - python_module:\n      module_name: thano_assets.definitions\n"
        '      location_name: thano_assets\n      working_directory: "/moved/away"\n'
    )
    update_workspace_yaml(workspace.dagster_home)
    assert "/moved/away" not in path.read_text(encoding="utf-8")
    path.write_text("load_from:\n  - python_file: own.py\n")
    update_workspace_yaml(workspace.dagster_home)
    thano, own = yaml.safe_load(path.read_text(encoding="utf-8"))["load_from"]
    assert thano["python_module"]["location_name"] == "thano_assets"
    assert own == {"python_file": "own.py"}
