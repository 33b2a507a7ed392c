"""Many clients at once beside one training: no error of the server's, no lost row, and memory that stays.

    python benchmarks/serve_mixed.py                          # 50 clients, 5 minutes
    python benchmarks/serve_mixed.py --clients 10 --seconds 30

Clients SELECT, COPY, INSERT and PREDICT at random, each as fast as it is answered. At the end the rows of
every table are counted against those that were acknowledged.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import requests

sys.path.insert(0, str(Path(__file__).parent))
from serve import MODEL, free_port, percentile, prepared, serving


class Clients:
    """What the clients have done, together."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lock = threading.Lock()
        self.rows: collections.Counter[str] = collections.Counter()
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self.errors: list[str] = []

    def ask(self, session: requests.Session, kind: str, method: str, path: str, **more: Any) -> Any:
        """One request; what came of it is noted."""
        began = time.perf_counter()
        try:
            answer = session.request(method, f"{self.url}/api/v1{path}", timeout=300, **more)
            found = answer.json()
        except (requests.RequestException, ValueError) as error:
            with self.lock:
                self.errors.append(f"{kind}: {type(error).__name__} {error}")
            return None
        with self.lock:
            self.seconds[kind].append(time.perf_counter() - began)
            if not answer.ok or found.get("error_result"):
                told = found.get("error_result") or str(found.get("error"))
                self.errors.append(f"{kind}: {answer.status_code} {told[:300]}")
                return None
        return found

    def work(self, number: int, until: float) -> None:
        """One client."""
        draw, session = random.Random(number), requests.Session()
        own, shared = f"own_{number}", f"shared_{number % 5}"
        while time.perf_counter() < until:
            kind = draw.choices(("SELECT", "PREDICT", "INSERT", "COPY"), (6, 6, 2, 1))[0]
            if kind == "SELECT":
                query = draw.choice(("SELECT 1 AS a", f"SELECT count(*) AS n FROM {shared}"))
                self.ask(session, kind, "POST", "/query/", json={"query_string": query})
            elif kind == "PREDICT":
                texts = [f"a film {draw.random()}" for _ in range(draw.randint(1, 4))]
                self.ask(session, kind, "POST", f"/models/{MODEL}/predict", json={"texts": texts})
            elif kind == "INSERT":
                rows = [{"n": draw.randint(0, 99), "client": number} for _ in range(draw.randint(1, 20))]
                if self.ask(session, kind, "POST", f"/table/{shared}/records", json=rows):
                    with self.lock:
                        self.rows[shared] += len(rows)
            else:
                data = [{"n": value} for value in range(draw.randint(1, 50))]
                body = {"data": data}
                path = f"/table/{own}/upload/json?if_exists=replace"
                if self.ask(session, kind, "POST", path, json=body):
                    with self.lock:
                        self.rows[own] = len(data)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300.0)
    asked = parser.parse_args()
    from thano_assets.resources.environments import open_workspace

    with tempfile.TemporaryDirectory(prefix="thano-") as name:
        workspace = open_workspace(Path(name) / "workspace")
        prepared(workspace)
        port = free_port()
        command = [sys.executable, "-m", "thano_assets.interfaces.cli", "-w", str(workspace.root), "serve"]
        log = Path(name) / "serve.log"
        print("load average before: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()), flush=True)
        with serving([*command, "--port", str(port)], port, "/healthz", log):
            clients, one = Clients(f"http://127.0.0.1:{port}"), requests.Session()
            for number in range(5):
                columns = [{"name": "n", "type": "bigint"}, {"name": "client", "type": "bigint"}]
                table = {"table": {"columns": columns}}
                clients.ask(one, "CREATE", "POST", f"/table/shared_{number}", json=table)
            build = (
                "BUILD MODEL beside USING ElectraEn OPTIONS (text_col='review', label_col='sentiment', "
                "epochs=1, max_length=64) AS SELECT * FROM train_reviews"
            )
            run = clients.ask(one, "BUILD", "POST", "/runs", json={"statement": build})
            server = next(
                each for each in psutil.process_iter(["cmdline"]) if str(port) in (each.info["cmdline"] or [])
            )
            until = time.perf_counter() + asked.seconds
            threads = [
                threading.Thread(target=clients.work, args=(number, until)) for number in range(asked.clients)
            ]
            for thread in threads:
                thread.start()
            memory = []
            while time.perf_counter() < until:
                memory.append(server.memory_info().rss / 1e6)
                time.sleep(asked.seconds / 20)
            for thread in threads:
                thread.join()
            state = clients.ask(one, "RUN", "GET", f"/runs/{run['id']}")
            lost = 0
            for table_name, wanted in clients.rows.items():
                query = {"query_string": f"SELECT count(*) AS n FROM {table_name}"}
                found = clients.ask(one, "COUNT", "POST", "/query/", json=query)
                lost += abs(found["records"]["data"][0]["n"] - wanted)
            while state["state"] in ("queued", "running"):
                time.sleep(1)
                state = clients.ask(one, "RUN", "GET", f"/runs/{run['id']}")
        for kind in ("SELECT", "PREDICT", "INSERT", "COPY"):
            taken = clients.seconds[kind]
            print(
                f"  {kind:7}: {len(taken):6,} requests, p50 {percentile(taken, 0.5):,.0f} ms, "
                f"p99 {percentile(taken, 0.99):,.0f} ms"
            )
        acknowledged = sum(clients.rows.values())
        print(f"  errors: {len(clients.errors)}; rows acknowledged {acknowledged:,}, differing {lost}")
        for error in clients.errors[:5]:
            print(f"    {error}")
        print(f"  memory of the server, MB: {', '.join(f'{value:.0f}' for value in memory)}")
        print(f"  the training beside: {state['state']}")
        print("load average after: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
