"""PREDICT's classifier against Hugging Face's ``pipeline("text-classification")`` at its defaults.

    python benchmarks/predict.py                                        # 1,000 reviews of natural length
    python benchmarks/predict.py --texts test.parquet --rows 5000       # a column review, sentiment or label
    python benchmarks/predict.py --texts test.parquet --characters 80   # short texts
    python benchmarks/predict.py --model random-electra-base --peer-bf16  # another folder; on a GPU

Both read the same folder, the pre-built ELECTRA classifier of seven layers: 256 tokens from the beginning
of a text. The pipeline gets ``batch_size=32, truncation=True, max_length=256`` and computes in
float32 (``--peer-bf16``: bfloat16). Sides
take turns, so that other work on the machine slows both; the first pair warms up with few texts. Seconds are
of the clock and of the processor.

The share of the matrix rate is what the layers need for the tokens that the texts have, without padding, by
the rate of a product of two 2048 × 2048 bfloat16 matrices (float32 where PREDICT computes in that) in the
same process. Two counts: all seven layers for all tokens, as the pipeline computes them; and what is left of
them when the last layer is computed for the first token alone, as PREDICT does. A multiplication with its
addition is two operations.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from thano_assets.resources.environments import open_workspace

MAX_LENGTH = 256
SIDE = 2048  # of the matrices whose product sets the rate


def rows_of(path: Path | None, count: int) -> tuple[list[str], list[str]]:
    """Distinct texts and their labels in random order: of the file, else of the tutorial's test rows."""
    if path is None:
        import duckdb

        from thano_assets.resources import datasets

        with tempfile.TemporaryDirectory(prefix="thano-") as name:
            files = datasets.ensure(open_workspace(Path(name) / "w"), size="tutorial")
            test = next(file for file in files if "test" in file.name)
            found = duckdb.read_csv(str(test)).project("review, sentiment").fetchall()
    else:
        table = pq.read_table(path)
        text, label = (
            next(name for name in names if name in table.column_names)
            for names in (("review", "text"), ("sentiment", "label"))
        )
        found = list(zip(table.column(text).to_pylist(), table.column(label).to_pylist(), strict=True))
    distinct = list({str(row[0]): str(row[1]) for row in found}.items())
    order = np.random.default_rng(42).permutation(len(distinct))[:count]
    return [distinct[row][0] for row in order], [distinct[row][1] for row in order]


def model_folder(folder: Path, given: Path | None) -> Path:
    """The pre-built classifier or another, told to read the beginning of a text as the pipeline does."""
    from thano_assets.resources import prebuilt

    if given is None:
        prebuilt.materialize(folder)
    else:
        shutil.copytree(given, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["thano_text"] = {"max_length": MAX_LENGTH, "head_share": 1.0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def operations(config: Any, lengths: np.ndarray) -> tuple[float, float]:
    """Those of the layers for texts of these lengths: all of them, and without what the last one need not."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    tokens, texts = float(lengths.sum()), len(lengths)
    pairs = float((lengths.astype(np.float64) ** 2).sum())
    after = hidden * hidden + 2 * hidden * inner  # of a token, once it has attended
    layer = tokens * (3 * hidden * hidden + after) + 2 * pairs * hidden
    # Scores and weighted means of the tokens as they are, and projections of the first token only.
    last = 2 * tokens * heads * hidden + texts * (3 * hidden * hidden + after)
    layers = config.num_hidden_layers
    return 2 * layers * layer, 2 * ((layers - 1) * layer + last)


def matrix_rate(dtype: Any, place: Any) -> float:
    """Operations per second of a product of two square matrices; the median of 20."""
    import torch

    left, right = (torch.randn(SIDE, SIDE).to(place, dtype) for _ in range(2))
    wait = torch.cuda.synchronize if place.type == "cuda" else (lambda: None)
    seconds = []
    for _ in range(23):
        wait()
        started = time.perf_counter()
        left @ right
        wait()
        seconds.append(time.perf_counter() - started)
    return 2 * SIDE**3 / statistics.median(seconds[3:])


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What ``work`` returns, its seconds and its processor seconds."""
    started, before = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - started, time.process_time() - before


def shown(name: str, ratios: list[float]) -> None:
    print(f"  {name}: {statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--characters", type=int, help="cut the texts to so many characters")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--model", type=Path, help="a folder in the place of the pre-built classifier")
    parser.add_argument("--peer-bf16", action="store_true", help="have the pipeline compute in bfloat16")
    asked = parser.parse_args()
    import torch
    from transformers import pipeline

    from thano_assets.learning.device import device
    from thano_assets.learning.predict import Predictor

    libraries = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers")]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{', '.join(libraries)}"
    )
    print("load average before: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))
    texts, labels = rows_of(asked.texts, asked.rows)
    texts = [text[: asked.characters] for text in texts]
    with tempfile.TemporaryDirectory(prefix="thano-") as name:
        folder = model_folder(Path(name) / "model", asked.model)
        ours = Predictor.load(folder)
        theirs_in = torch.bfloat16 if asked.peer_bf16 else torch.float32
        peer = pipeline("text-classification", model=str(folder), batch_size=32, dtype=theirs_in)
        lengths = ours._encoder.encode(texts).lengths
        print(
            f"{len(texts):,} texts, mean {lengths.mean():.0f} tokens of at most {MAX_LENGTH}; "
            f"{ours.device} {ours.precision}, the pipeline {str(peer.model.dtype).removeprefix('torch.')}"
        )

        def mine(given: list[str]) -> list[str]:
            return [ours.classes[place] for place in ours.predict(given).argmax(axis=1)]

        def theirs(given: list[str]) -> list[str]:
            found = peer(given, truncation=True, max_length=MAX_LENGTH)
            return [one["label"] for one in found]

        mine(texts[:64]), theirs(texts[:64])
        dtype = torch.bfloat16 if ours.precision == "bf16" else torch.float32
        pairs, rates = [], []
        for _ in range(asked.pairs):
            rates.append(matrix_rate(dtype, device()))
            pairs.append((timed(lambda: mine(texts)), timed(lambda: theirs(texts))))
    found, exact = pairs[-1][0][0], pairs[-1][1][0]
    for who, side in (("PREDICT", 0), ("pipeline", 1)):
        speeds = sorted(len(texts) / pair[side][1] for pair in pairs)
        print(f"  {who}: {statistics.median(speeds):.1f} rows/s ({speeds[0]:.1f} to {speeds[-1]:.1f})")
    shown("ratio", [pair[1][1] / pair[0][1] for pair in pairs])
    shown("ratio of processor seconds", [pair[1][2] / pair[0][2] for pair in pairs])
    everything, needed = operations(ours._model.config, lengths)
    rate = statistics.median(rates)
    seconds = statistics.median(pair[0][1] for pair in pairs)
    print(
        f"  matrix rate {rate / 1e9:.0f} GFLOP/s ({min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f}); PREDICT "
        f"reaches {needed / seconds / rate:.0%} of it, {everything / seconds / rate:.0%} counting the whole "
        "last layer"
    )
    same = sum(one == other for one, other in zip(found, exact, strict=True))
    print(f"  labels as the pipeline's in float32: {same:,} of {len(texts):,}, {same / len(texts):.2%}")
    for who, said in (("PREDICT", found), ("pipeline", exact)):
        right = sum(one == label for one, label in zip(said, labels, strict=True))
        print(f"  accuracy of {who}: {right / len(texts):.4f}")
    print("load average after: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
