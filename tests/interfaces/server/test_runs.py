"""Long statements over HTTP: what is told of them, and what becomes of them when somebody dies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

import pytest
import requests

from thano_assets.resources.environments import registry_of
from thano_assets.resources.workspace import Workspace

from .conftest import Running, serving

ROWS = (
    "SELECT CASE WHEN range % 2 = 0 THEN 'good film' ELSE 'bad film' END || range AS text, range % 2 AS label"
)


def build(name: str, rows: int = 16, epochs: int = 1) -> str:
    return (
        f"BUILD MODEL {name} USING \"tiny\" OPTIONS (text_col='text', label_col='label', epochs={epochs}, "
        f"batch_size=4, overwrite=True) AS {ROWS} FROM range({rows})"
    )


def start(server: Running, statement: str, **more) -> str:
    found = server.ask("POST", "/runs", json={"statement": statement, **more})
    assert found.status_code == 202, found.text
    assert found.headers["Location"] == f"/api/v1/runs/{found.json()['id']}"
    return found.json()["id"]


def state(server: Running, run: str) -> dict:
    return server.ask("GET", f"/runs/{run}").json()


def wait(server: Running, run: str, until: Callable[[dict], bool], seconds: float = 90) -> dict:
    end = time.monotonic() + seconds
    while not until(found := state(server, run)):
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return found


def ended(found: dict) -> bool:
    return found["state"] in ("succeeded", "failed", "cancelled")


def training(found: dict) -> bool:
    assert not ended(found), found
    return found["progress"] is not None and found["progress"]["label"] == "Training"


def test_a_run_tells_how_it_goes_and_what_came_of_it(server: Running) -> None:
    run = start(server, build("told", rows=200, epochs=6))
    seen = wait(server, run, training)
    assert seen["state"] == "running"
    assert seen["progress"]["total"] == 6 * 180
    assert 0 <= seen["progress"]["step"] <= seen["progress"]["total"]
    assert seen["dagster_run"]["url"].endswith(seen["dagster_run"]["id"])
    found = wait(server, run, ended)
    assert found["state"] == "succeeded"
    assert found["result"]["records"][0]["rows_train"] == 180
    assert found["result"]["dagster_run"]["id"] == seen["dagster_run"]["id"]
    assert found["created"] <= found["started"] <= found["ended"]
    runs = server.run("SHOW RUNS")
    assert seen["dagster_run"]["id"] in json.dumps(runs)
    assert found["id"] in [one["id"] for one in server.ask("GET", "/runs").json()["runs"]]


def events(server: Running, run: str, **headers: str) -> list[tuple[int, str, dict]]:
    found, number, name = [], 0, ""
    with requests.get(f"{server.api}/runs/{run}/events", stream=True, timeout=90, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines(decode_unicode=True):
            field, _, value = line.partition(": ")
            if field == "id":
                number = int(value)
            elif field == "event":
                name = value
            elif field == "data":
                found.append((number, name, json.loads(value)))
    return found


def test_events_are_sent_as_they_happen(server: Running) -> None:
    run = start(server, "CREATE OR REPLACE TABLE made AS SELECT $n AS n", values={"n": "it's"})
    found = events(server, run)
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    assert found[0][1] == "started"
    assert found[-1][1] == "succeeded"
    assert found[-1][2]["result"]["records"] == [{"n": "it's"}]
    assert events(server, run, **{"Last-Event-ID": str(len(found) - 1)}) == found[-1:]


def test_a_run_that_fails_says_why(server: Running) -> None:
    run = start(server, build("one_class").replace("range % 2 AS label", "1 AS label"))
    found = wait(server, run, ended)
    assert found["state"] == "failed"
    assert found["error"]["code"] == "training-data"
    wrong = server.ask("POST", "/runs", json={"statement": "BUILD MODEL"})
    assert wrong.status_code == 400
    assert server.ask("GET", "/runs/none").status_code == 404
    assert server.ask("GET", "/runs/..%2f..").status_code == 404


def test_cancelled_runs_leave_nothing(server: Running) -> None:
    first = [start(server, build(f"cancelled_{n}", rows=2000, epochs=50)) for n in range(2)]
    last = start(server, build("never"))  # waits for a free place
    wait(server, first[0], training)
    assert state(server, last)["state"] == "queued"
    assert server.ask("DELETE", f"/runs/{last}").json()["state"] == "cancelled"
    for run in first:
        assert server.ask("DELETE", f"/runs/{run}").status_code == 202
    assert {wait(server, run, ended)["state"] for run in first} == {"cancelled"}
    assert state(server, last)["started"] is None
    for name in ("cancelled_0", "cancelled_1", "never"):
        assert registry_of(server.workspace).versions(name) == []
        assert server.ask("GET", f"/models/{name}").status_code == 404
    assert server.ask("DELETE", f"/runs/{first[0]}").json()["state"] == "cancelled"


@pytest.fixture
def own(make_server_workspace: Callable[[], Workspace]) -> Workspace:
    return make_server_workspace()


def test_a_run_outlives_its_server_which_keeps_nobody_waiting(own: Workspace) -> None:
    with serving(own) as server:
        run = start(server, build("outlives", rows=400, epochs=4))
        wait(server, run, training)
        with requests.get(f"{server.api}/runs/{run}/events", stream=True, timeout=60) as answer:
            next(answer.iter_lines())
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(15) == 0
        with serving(own) as again:
            assert wait(again, run, ended)["state"] == "succeeded"
            assert again.ask("GET", "/models/outlives").status_code == 200


def test_a_run_whose_process_is_killed_is_told_to_have_failed(own: Workspace) -> None:
    with serving(own) as server:
        run = start(server, build("killed", rows=2000, epochs=50))
        wait(server, run, training)
        server.kill()
        story = (own.server / "runs" / run / "events.jsonl").read_text(encoding="utf-8")
        process = next(json.loads(line)["process"] for line in story.splitlines() if '"started"' in line)
        os.kill(process, signal.SIGKILL)
        with serving(own) as again:
            found = wait(again, run, ended)
            assert found["state"] == "failed"
            assert "process ended" in found["error"]["message"]
            assert again.ask("GET", "/models/killed").status_code == 404


def test_an_upload_of_a_server_that_was_killed_is_removed(own: Workspace) -> None:
    with serving(own) as server:
        server.ask("POST", "/table/kept/upload/json", json={"data": [{"a": 1}]})
        left = own.data / "uploads" / "kept" / "half.csv"
        left.write_text("a\n", encoding="utf-8")
        os.utime(left, (0, 0))
        server.kill()
        with serving(own) as again:
            assert not left.exists()
            assert again.run("SELECT a FROM kept") == [{"a": 1}]
