"""Models over HTTP: ``thano serve`` against ``mlflow models serve`` of the same version, in turns.

    python benchmarks/serve.py                       # reviews cut to 80 characters, 1, 8 and 64 callers
    python benchmarks/serve.py --characters 2000     # as long as reviews are

The pre-built classifier answers one text a request. Callers keep their connection and ask again as
soon as they have their answer, for ``--seconds`` each. The bare forward pass is ``Predictor.predict`` of one
text in a process of its own, with the same threads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

MODEL = "tutorial_text_classification"


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(command: list[str], port: int, path: str, log: Path, **environment: str) -> Iterator[float]:
    """A server from its start to its first answer, whose seconds are given."""
    started = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None:
                    raise SystemExit(log.read_text()) from None
                time.sleep(0.02)
        yield time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(30)


def prepared(workspace: Any) -> list[str]:
    """Fill a workspace with the reviews of the tutorial and the pre-built classifier; the test reviews."""
    from thano_assets.session import Session

    with Session(workspace) as session:
        session.execute("GET THANOSQL DATASET movie_review_data")
        for side in ("train", "test"):
            file = f"tutorial_data/movie_review_data/movie_review_{side}.csv"
            session.execute(f"COPY {side}_reviews FROM '{file}'")
        few = f"PREDICT USING {MODEL} OPTIONS (text_col='review') AS SELECT review FROM test_reviews LIMIT 2"
        session.execute(few)
        texts: list[str] = session.execute("SELECT review FROM test_reviews").arrow().column(0).to_pylist()
    return texts


async def caller(port: int, path: str, bodies: list[bytes], until: float, seconds: list[float]) -> None:
    """Ask one text after the other over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    place = id(seconds) % len(bodies)
    while time.perf_counter() < until:
        place = (place + 7) % len(bodies)
        body = bodies[place]
        began = time.perf_counter()
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        if " 200 " not in head.partition("\r\n")[0]:
            raise SystemExit(head)
        length = int(
            next(line for line in head.split("\r\n") if line.startswith("content-length")).split(":")[1]
        )
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - began)
    writer.close()


def load(
    port: int, path: str, bodies: list[bytes], callers: int, seconds: float
) -> tuple[float, list[float]]:
    """Texts a second, and the seconds of each request."""

    async def all_of_them() -> tuple[float, list[float]]:
        taken: list[float] = []
        began = time.perf_counter()
        await asyncio.gather(*(caller(port, path, bodies, began + seconds, taken) for _ in range(callers)))
        return len(taken) / (time.perf_counter() - began), taken

    return asyncio.run(all_of_them())


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    return 1000 * sorted(values)[min(len(values) - 1, int(share * len(values)))]


def bare(folder: Path, texts: list[str]) -> float:
    """Median milliseconds of a forward pass of one text."""
    from thano_assets.learning.predict import Predictor

    predictor = Predictor.load(folder)
    predictor.predict(texts[:20])
    taken = []
    for text in texts[:200]:
        began = time.perf_counter()
        predictor.predict([text])
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--characters", type=int, default=80)
    asked = parser.parse_args()
    from thano_assets.resources.environments import open_workspace, registry_of

    with tempfile.TemporaryDirectory(prefix="thano-") as name, ExitStack() as stack:
        workspace = open_workspace(Path(name) / "workspace")
        found = prepared(workspace)
        texts = [text[: asked.characters] for text in found]
        version = registry_of(workspace).resolve(MODEL)
        assert version is not None
        ports = free_port(), free_port()
        home = str(workspace.root)
        began = stack.enter_context(
            serving(
                [
                    sys.executable,
                    "-m",
                    "thano_assets.interfaces.cli",
                    "-w",
                    home,
                    "serve",
                    "--port",
                    str(ports[0]),
                ],
                ports[0],
                "/healthz",
                Path(name) / "thano.log",
            )
        )
        peer = stack.enter_context(
            serving(
                [
                    *(sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{MODEL}/1"),
                    *("--env-manager", "local", "--port", str(ports[1])),
                ],
                ports[1],
                "/ping",
                Path(name) / "mlflow.log",
                MLFLOW_TRACKING_URI=f"sqlite:///{workspace.mlflow / 'mlflow.db'}",
            )
        )
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
        print("load average before: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))
        print(f"start to first answer: thano serve {began:.1f} s, mlflow models serve {peer:.1f} s")
        sides: dict[str, tuple[int, str, list[bytes]]] = {
            "thano": (
                ports[0],
                f"/api/v1/models/{MODEL}/predict",
                [json.dumps({"texts": [text]}).encode() for text in texts],
            ),
            "mlflow": (ports[1], "/invocations", [json.dumps({"inputs": [text]}).encode() for text in texts]),
        }
        for port, path, bodies in sides.values():
            load(port, path, bodies, 4, 2)
        for callers in asked.callers:
            rates: dict[str, list[float]] = {side: [] for side in sides}
            taken: dict[str, list[float]] = {side: [] for side in sides}
            for turn in range(asked.rounds):
                for side in sides if turn % 2 == 0 else reversed(sides):
                    rate, seconds = load(*sides[side], callers, asked.seconds)
                    rates[side].append(rate)
                    taken[side] += seconds
            for side in sides:
                print(
                    f"{callers:3} callers, {side:6}: {statistics.median(rates[side]):7.1f} texts/s "
                    f"({min(rates[side]):.1f} to {max(rates[side]):.1f}), "
                    f"p50 {percentile(taken[side], 0.5):.1f} ms, p99 {percentile(taken[side], 0.99):.1f} ms"
                )
            ratios = [one / other for one, other in zip(rates["thano"], rates["mlflow"], strict=True)]
            spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"{callers:3} callers: {statistics.median(ratios):.2f} times {spread}")
        stack.close()
        print(f"bare forward pass of one text: {bare(version.path, texts):.1f} ms")
        print("load average after: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
