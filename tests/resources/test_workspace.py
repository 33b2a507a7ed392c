from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from thano_assets.errors import WorkspaceError
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.settings import SETTINGS_TEXT, Settings, read_settings
from thano_assets.resources.workspace import Workspace


def test_create_makes_the_layout(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "new" / "workspace")
    folders = (
        workspace.data,
        workspace.statements,
        workspace.snapshots,
        workspace.mlflow,
        workspace.dagster_home,
        workspace.models_cache,
    )
    assert all(folder.is_dir() for folder in folders)
    assert workspace.warehouse_path == workspace.root / "warehouse.duckdb"
    assert (workspace.root / ".gitignore").is_file()
    assert not workspace.warehouse_path.exists(), "the database is made by the first write"


def test_create_keeps_what_is_there(workspace: Workspace) -> None:
    workspace.settings_path.write_text("[warehouse]\nthreads = 2\n", encoding="utf-8")
    again = open_workspace(workspace.root)
    assert again.settings.warehouse.threads == 2


def test_the_commented_settings_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "thano.toml"
    path.write_text(SETTINGS_TEXT, encoding="utf-8")
    assert read_settings(path) == read_settings(tmp_path / "none.toml")
    # Each line that is commented out is legal when it is not.
    lines = [
        line[2:].split("  ")[0] if line.startswith("# ") and " = " in line else line
        for line in SETTINGS_TEXT.splitlines()
    ]
    path.write_text("\n".join(line for line in lines if not line.startswith("#")), encoding="utf-8")
    settings = read_settings(path)
    assert settings.warehouse.memory_limit == "4GB"
    assert settings.files.allowed == ((tmp_path / "../more-data").resolve(),)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[files]\nallowed = ['a'\n", 3, "line 3"),
        ("\n\n[file]\n", 3, "[file] is not a table of it"),
        ("[files]\nalowed = []\n", 2, "'alowed' is not a setting of [files]"),
        ("[warehouse]\n\nthreads = 'two'\n", 3, "must be a whole number from 1 up, not 'two'"),
        ("[warehouse]\nthreads = true\n", 2, "must be a whole number from 1 up"),
        ("[warehouse]\nthreads = 0\n", 2, "must be a whole number from 1 up"),
        ("[files]\nallowed = 'a'\n", 2, "must be a list of folders"),
        ("[files]\nallowed = [1]\n", 2, "must be a list of folders"),
        ("[mlflow]\nurl = 'a'\n[dagster]\nurl = 5\n", 4, "'url' in [dagster] must be an address"),
        ("mlflow = 1\n", 1, "[mlflow] is not a table of it"),
    ],
)
def test_broken_settings_name_the_line(workspace: Workspace, text: str, line: int, says: str) -> None:
    workspace.settings_path.write_text(text, encoding="utf-8")
    with pytest.raises(WorkspaceError) as caught:
        open_workspace(workspace.root)
    assert says in caught.value.message
    assert str(workspace.settings_path) in caught.value.message
    assert caught.value.line == line
    assert caught.value.hint


def test_settings_that_are_no_text(workspace: Workspace) -> None:
    workspace.settings_path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WorkspaceError, match="is not UTF-8 text"):
        open_workspace(workspace.root)


def test_addresses_from_the_environment(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THANO_MLFLOW_URL", "http://mlflow:1")
    monkeypatch.setenv("THANO_DAGSTER_URL", "http://dagster:2")
    settings = Workspace(workspace.root).settings
    assert (settings.mlflow.url, settings.dagster.url) == (
        "http://mlflow:1",
        "http://dagster:2",
    )


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert Workspace.find().root == below / "workspace"
    (tmp_path / "thano.toml").touch()
    assert Workspace.find().root == tmp_path
    monkeypatch.setenv("THANO_WORKSPACE", str(tmp_path / "named"))
    assert Workspace.find().root == tmp_path / "named"
    assert Workspace.find(tmp_path / "given").root == tmp_path / "given"


def test_open_without_create(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="is not a workspace"):
        open_workspace(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match="cannot be made"):
        open_workspace(tmp_path / "file" / "workspace")


def test_many_processes_create_at_once(tmp_path: Path) -> None:
    code = "import sys\nfrom thano_assets.resources.environments import open_workspace\nopen_workspace(sys.argv[1])"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "w")]) for _ in range(6)]
    assert [process.wait() for process in processes] == [0] * 6
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == [
        ".gitignore",
        ".locks",
        "dagster",
        "data",
        "mlflow",
        "models-cache",
        "snapshots",
        "statements",
        "thano.toml",
    ]
    assert [path.name for path in (tmp_path / "w" / "dagster").iterdir()] == ["dagster.yaml"]


def test_lock_excludes_and_a_kill_frees_it(workspace: Workspace) -> None:
    code = (
        "import sys, time\nfrom thano_assets.resources.workspace import Workspace\n"
        "with Workspace(sys.argv[1]).lock('x'):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(workspace.root)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiter = subprocess.Popen(
        [sys.executable, "-c", code.replace("time.sleep(60)", "pass"), str(workspace.root)]
    )
    with pytest.raises(subprocess.TimeoutExpired):
        waiter.wait(timeout=1)
    holder.kill()
    assert waiter.wait(timeout=10) == 0
    holder.wait()


def test_dagster_takes_the_instance_file(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    import dagster as dg

    monkeypatch.setenv("DAGSTER_HOME", str(workspace.dagster_home))
    with dg.DagsterInstance.get() as instance:
        assert instance.telemetry_enabled is False
        assert instance.nux_enabled is False
        assert instance.run_monitoring_enabled is True
        coordinator = instance.run_coordinator
        assert coordinator._dequeue_interval_seconds == 1  # type: ignore[attr-defined]  # no public name
        for folder in (instance.storage_directory(), instance.schedules_directory()):
            assert Path(folder).is_relative_to(workspace.dagster_home)


def test_importing_is_cheap() -> None:
    code = (
        "import sys\nimport thano_assets.resources.workspace, thano_assets.resources.files\n"
        "import thano_assets.resources.warehouse, thano_assets.resources.registry\n"
        "heavy = {'mlflow', 'torch', 'transformers', 'dagster', 'pandas', 'pyarrow', 'python_calamine', 'chardet'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_every_setting_and_environment_variable_is_documented() -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs" / "settings.md").read_text("utf-8")
    documented = dict(re.findall(r"^\| `(\[\w+\] \w+)` \| ([^|]+) \|", text, re.M))
    defaults = {
        f"[{table.name}] {one.name}": getattr(getattr(Settings(), table.name), one.name)
        for table in dataclasses.fields(Settings)
        for one in dataclasses.fields(getattr(Settings(), table.name))
    }
    assert documented.keys() == defaults.keys()
    for name, default in defaults.items():
        if isinstance(default, str | int):  # others are told in words
            assert documented[name] == f"`{str(default).lower() if isinstance(default, bool) else default}`"
    used = {
        name
        for path in (root / "thano_assets").rglob("*.py")
        for name in re.findall(r"\bTHANO_[A-Z][A-Z_]+\b", path.read_text("utf-8"))
    }
    assert used == set(re.findall(r"`(THANO_[A-Z_]+)`", text))
