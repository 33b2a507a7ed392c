"""Runs of a model that are terminated at random moments: how each ended, and what it left behind.

Starts ``thano ui`` for a workspace of its own, launches trainings over GraphQL and ends each one by Terminate
(GraphQL) or by a SIGTERM of its process. Prints one line per termination and a summary as JSON.

    python benchmarks/terminations.py --count 20 --seed 1 [--busy 4] [--way graphql|sigterm]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from thano_assets.resources.environments import open_workspace
from thano_assets.session import Session

LAUNCH = """
mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }"""
TERMINATE = "mutation($run: String!) { terminateRun(runId: $run) { __typename } }"
RUN = "query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"
LOG = """
query($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection(limit: 1000) { events {
  ... on MessageEvent { message } ... on ErrorEvent { error { message causes { message } } } } } } } }"""
BUILD = (
    "BUILD MODEL m USING ElectraEn OPTIONS (text_col='text', label_col='label', epochs={epochs}, "
    "baseline=False, max_length=32, overwrite=True{gate}) AS SELECT * FROM rows"
)


def ask(address: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Data that Dagster's GraphQL answers with."""
    request = urllib.request.Request(
        f"{address}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer)["data"])


def status(address: str, run: str) -> str:
    """Of a run."""
    return str(ask(address, RUN, {"run": run})["runOrError"]["status"])


def log(address: str, run: str) -> list[str]:
    """Messages of a run's events."""
    events = ask(address, LOG, {"run": run})["runOrError"]["eventConnection"]["events"]
    return [f"{event.get('message', '')} {event.get('error') or ''}".strip() for event in events]


def spin() -> None:
    """Keep a core busy."""
    while True:
        sum(range(10_000))


def one(address: str, way: str, delay: float) -> tuple[str, float, float]:
    """Launch a run, end it ``delay`` seconds into its step; how it ended, and seconds until then."""
    selector = {
        "repositoryLocationName": "thano_assets",
        "repositoryName": "__repository__",
        "jobName": "__ASSET_JOB",
        "assetSelection": [{"path": ["training_sets", "m"]}, {"path": ["models", "m"]}],
        "assetCheckSelection": None,
    }
    params = {"selector": selector, "mode": "default", "runConfigData": {}}
    found = ask(address, LAUNCH, {"params": params})["launchRun"]
    if "run" not in found:
        raise RuntimeError(str(found))
    run = found["run"]["runId"]
    started = time.monotonic()
    while not any("execution of step" in m and "models__m" in m for m in log(address, run)):
        if time.monotonic() - started > 120 or status(address, run) in ("FAILURE", "SUCCESS"):
            raise RuntimeError(f"run {run}: {log(address, run)[-3:]}")
        time.sleep(0.1)
    time.sleep(delay)
    before = status(address, run)
    if before != "STARTED":
        return f"ended by itself: {before}", 0.0, delay
    told = time.monotonic()
    if way == "graphql":
        ask(address, TERMINATE, {"run": run})
    else:
        pid = next(m for m in map(re.compile(r"pid: (\d+)").search, log(address, run)) if m)[1]
        os.kill(int(pid), signal.SIGTERM)
    while status(address, run) not in ("CANCELED", "FAILURE", "SUCCESS"):
        if time.monotonic() - told > 120:
            break
        time.sleep(0.1)
    return status(address, run), time.monotonic() - told, delay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--busy", type=int, default=0, help="processes that keep the cores busy meanwhile")
    parser.add_argument("--way", choices=("graphql", "sigterm"), default="graphql")
    parser.add_argument("--gate", action="store_true", help="with promote_if")
    parser.add_argument("--epochs", type=int, default=30, help="how long the training takes")
    parser.add_argument("--latest", type=float, default=12.0, help="latest moment, seconds into the step")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="terminations-") as folder:
        workspace = open_workspace(Path(folder) / "workspace")
        rows = [{"text": f"{'good' if n % 2 else 'bad'} film number {n}", "label": n % 2} for n in range(400)]
        (workspace.data / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        with Session(workspace) as session:
            session.execute("COPY rows FROM 'rows.jsonl'")
            gate = ", promote_if='accuracy >= 0'" if args.gate else ""
            session.execute(BUILD.format(gate=gate, epochs=1))
            session.execute("SELECT 1")
            (statement,) = workspace.statements.rglob("m.sql")
            statement.write_text(BUILD.format(gate=gate, epochs=args.epochs) + ";\n")

            def versions() -> list[Any]:
                return [(v.version, v.aliases) for v in session._runtime.registry.versions("m")]

            before = versions()
            environment = {**os.environ, "THANO_WORKSPACE": str(workspace.root)}
            server = subprocess.Popen(
                [str(Path(sys.executable).with_name("thano")), "ui", "--no-browser"],
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            busy = [multiprocessing.Process(target=spin, daemon=True) for _ in range(args.busy)]
            try:
                told = workspace.dagster_home / "ui.json"
                while not told.exists():
                    time.sleep(0.5)
                address = json.loads(told.read_text())["dagster"]
                for process in busy:
                    process.start()
                ends: list[tuple[str, float]] = []
                wrong = 0
                for number in range(args.count):
                    end, seconds, delay = one(address, args.way, chance.uniform(0, args.latest))
                    ends.append((end, seconds))
                    now = versions()
                    if end == "CANCELED" and now != before:
                        wrong += 1
                    before = now
                    print(f"{number + 1:3} {args.way} at {delay:4.1f} s: {end} after {seconds:.1f} s, {now}")
                told_seconds = sorted(seconds for end, seconds in ends if end == "CANCELED")
                summary = {
                    "way": args.way,
                    "busy": args.busy,
                    "count": args.count,
                    "ends": {end: [e for e, _ in ends].count(end) for end in {e for e, _ in ends}},
                    "registered or promoted by a cancelled run": wrong,
                    "seconds to the end, median and most": [
                        round(told_seconds[len(told_seconds) // 2], 1) if told_seconds else None,
                        round(told_seconds[-1], 1) if told_seconds else None,
                    ],
                }
                print(json.dumps(summary))
            finally:
                for process in busy:
                    process.kill()
                server.terminate()
                server.wait()


if __name__ == "__main__":
    main()
