"""The doctor finds what is missing, says what to do, and fails only for what keeps statements from running."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interfaces.conftest import Thano
from thano_assets.commands import doctor
from thano_assets.resources.environments import open_workspace


def checks(found: str) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(found)["checks"]}


def test_a_sound_machine(thano: Thano) -> None:
    done = thano("doctor", "--format", "json")
    assert done.returncode == 0, done.stdout
    found = checks(done.stdout)
    assert json.loads(done.stdout)["sound"] is True
    for name in ("python", "thano", "duckdb", "torch", "processor", "memory", "device", "disk", "warehouse"):
        assert found[name]["state"] in ("ok", "note")
    assert found["base ElectraEn"]["state"] == "ok"
    assert found["data movie_review_data"]["state"] == "ok"


def test_a_broken_setting_is_a_problem_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "thano.toml").write_text("[files]\nallowed = 3\n")
    found = {check.name: check for check in doctor._workspace(str(tmp_path))}
    assert found["settings"].state == "problem"
    assert "line 2" in found["settings"].advice + found["settings"].found


def test_a_place_that_cannot_be_written_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    check = doctor._writable(tmp_path)
    assert (check.state, check.found) == ("problem", f"{tmp_path} cannot be written: Permission denied")
    assert "-w" in check.advice


def test_a_busy_warehouse_is_named(workspace: Path) -> None:
    from thano_assets.resources.warehouse import Warehouse

    opened = open_workspace(workspace)
    with Warehouse(opened.warehouse_path).write() as connection:
        connection.execute("CREATE OR REPLACE TABLE doctor_was_here AS SELECT 1 AS a")
    # Another thread stands for another program: the lock is between both alike.
    import threading

    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with Warehouse(opened.warehouse_path).write():
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(30)
        check = doctor._warehouse(opened)
    finally:
        done.set()
        thread.join()
    assert check.state == "note"
    assert check.found.startswith("Waiting for the warehouse:")
    assert doctor._warehouse(opened).found.endswith(("table", "tables"))
