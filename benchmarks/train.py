"""BUILD MODEL's training against Transformers' ``Trainer`` at its defaults, from the same starting model.

    python benchmarks/train.py --train train.parquet --test test.parquet   # 2,000 rows, seeds 42 1 2
    python benchmarks/train.py --rows 128 --test-rows 200 --seeds 42       # a look, on the tutorial's rows
    python benchmarks/train.py --base random-electra-base --peer-bf16      # a folder; on a GPU

Both start from the same folder, see the same rows, epochs and batch size, cut texts at the same number of
tokens and compute on the same threads. ``Trainer`` gets ``TrainingArguments`` at its defaults: dropout as the
model's configuration has it, batches at random, as wide as their longest text, fp32 (``--peer-bf16``: bf16).
The side that begins alternates from seed to seed. The files have columns review or text, and sentiment or
label.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import resource
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from thano_assets.resources.environments import open_workspace


@dataclass
class Texts:
    """Rows of one side."""

    texts: list[str]
    labels: list[str]


@dataclass
class Taken:
    """What one training took."""

    loop: float  # seconds of the training loop
    processor: float  # its processor time, all threads together
    whole: float  # seconds with all that comes before and after
    accuracy: float


def rows_of(path: Path | None, side: str, count: int) -> Texts:
    """The first ``count`` rows of the file in a fixed random order, else of the tutorial's data set."""
    if path is None:
        from thano_assets.resources import datasets

        table = datasets.load_split("tutorial")[0 if side == "train" else 1]
    else:
        table = pq.read_table(path)
    names = table.column_names
    text = "review" if "review" in names else "text"
    label = "sentiment" if "sentiment" in names else "label"
    chosen = np.random.default_rng(0).permutation(len(table))[:count]
    table = table.select([text, label]).take(chosen)
    return Texts(table[text].to_pylist(), [str(value) for value in table[label].to_pylist()])


def matrix_rate() -> float:
    """Bfloat16 products of 2048 x 2048 matrices, multiplications and additions a second; the best of nine."""
    import torch

    from thano_assets.learning.device import device

    one, other = (torch.randn(2048, 2048).to(device(), torch.bfloat16) for _ in range(2))
    torch.mm(one, other)
    seconds = []
    for _ in range(9):
        finished(device())
        started = time.perf_counter()
        torch.mm(one, other)
        finished(device())
        seconds.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(seconds)


def finished(place: Any) -> None:
    """Wait for what a GPU has been told to compute."""
    import torch

    if place.type == "cuda":
        torch.cuda.synchronize(place)


def operations(config: Any, lengths: np.ndarray) -> tuple[float, float]:
    """Multiplications and additions of one epoch on texts of ``lengths`` tokens, padding apart.

    The first figure is the model's as its authors count it: three times the matrix products of a forward pass
    through all layers (Kaplan et al. 2020, section 2.1). The second counts only what is computed where the
    last layer is read at its first token: all layers but that one.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    n = lengths.astype(np.float64)
    layer = 3 * float((2 * n * (4 * hidden**2 + 2 * hidden * inner) + 4 * n**2 * hidden).sum())
    return layer * config.num_hidden_layers, layer * (config.num_hidden_layers - 1)


def ours(
    base: Any, train: Texts, test: Texts, classes: list[str], seed: int, asked: argparse.Namespace
) -> Taken:
    """Train and judge in this project's way."""
    from thano_assets.learning import train as training
    from thano_assets.learning.predict import Predictor
    from thano_assets.learning.settings import TrainingSettings
    from thano_assets.progress import Progress

    taken: list[tuple[float, float]] = []
    fit = training.fit

    def timed(*args: Any, **options: Any) -> Any:
        started, used = time.perf_counter(), time.process_time()
        try:
            return fit(*args, **options)
        finally:
            taken.append((time.perf_counter() - started, time.process_time() - used))

    settings = TrainingSettings(
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        max_length=asked.max_length,
        seed=seed,
        eval_fraction=0.0,
        baseline=False,
    )
    with tempfile.TemporaryDirectory(prefix="thano-") as folder:
        started = time.perf_counter()
        training.fit = timed
        try:
            result = training.train(
                train.texts,
                train.labels,
                classes,
                base,
                settings,
                output_dir=Path(folder) / "model",
                checkpoint_dir=None,
                progress=Progress(),
            )
        finally:
            training.fit = fit
        whole = time.perf_counter() - started
        proba = Predictor.load(result.model_dir).predict(test.texts)
    guessed = [classes[place] for place in proba.argmax(axis=1)]
    return Taken(*taken[0], whole, float(np.mean(np.array(guessed) == np.array(test.labels))))


def peers(
    source: Path,
    max_length: int,
    train: Texts,
    test: Texts,
    classes: list[str],
    seed: int,
    asked: argparse.Namespace,
) -> Taken:
    """Train with ``Trainer`` as its users call it, and judge with the stock model in float32."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    started = time.perf_counter()
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=len(classes))
    found = tokenizer(train.texts, truncation=True, max_length=max_length)
    rows = [
        {name: found[name][row] for name in found} | {"label": classes.index(label)}
        for row, label in enumerate(train.labels)
    ]
    with tempfile.TemporaryDirectory(prefix="thano-") as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=asked.epochs,
                per_device_train_batch_size=asked.batch_size,
                seed=seed,
                bf16=asked.peer_bf16,
                disable_tqdm=True,
            ),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        before, used = time.perf_counter(), time.process_time()
        trainer.train()
        ended, used = time.perf_counter(), time.process_time() - used
        trainer.save_model()
    guessed = predicted(model.eval(), tokenizer, max_length, test.texts)
    right = np.mean([classes[place] == label for place, label in zip(guessed, test.labels, strict=True)])
    return Taken(ended - before, used, ended - started, float(right))


def predicted(model: Any, tokenizer: Any, max_length: int, texts: list[str]) -> list[int]:
    """Class indices, computed in fp32 by the stock model; sorted by length to save the reader's time."""
    import torch

    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    found = [0] * len(texts)
    for start in range(0, len(order), 16):
        part = order[start : start + 16]
        batch = tokenizer(
            [texts[row] for row in part],
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            for row, place in zip(
                part, model(**batch.to(model.device)).logits.argmax(-1).tolist(), strict=True
            ):
                found[row] = place
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--train", type=Path, help="parquet file; the tutorial's training rows by default")
    parser.add_argument("--test", type=Path, help="parquet file; the tutorial's test rows by default")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--base", default="ElectraEn", help="a base model's name, or a folder")
    parser.add_argument("--peer-bf16", action="store_true", help="have Trainer compute in bf16")
    parser.add_argument("--max-length", type=int, help="tokens of a text; as the base's recipe has it")
    parser.add_argument("--only", choices=("ours", "trainer"), help="leave the other out, for a profile")
    asked = parser.parse_args()
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import logging

    from thano_assets.learning import device
    from thano_assets.learning.encode import Encoder, limit
    from thano_assets.learning.recipes import recipe_for
    from thano_assets.learning.settings import TrainingSettings
    from thano_assets.progress import Progress
    from thano_assets.resources import base_models

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    train = rows_of(asked.train, "train", asked.rows)
    test = rows_of(asked.test, "test", asked.test_rows)
    classes = sorted(set(train.labels))
    with tempfile.TemporaryDirectory(prefix="thano-") as folder:
        workspace = open_workspace(Path(folder) / "workspace")
        if own := Path(asked.base).is_dir():
            shutil.copytree(asked.base, workspace.models_cache / "own-base")
        base = base_models.resolve("own-base" if own else asked.base, quoted=own, workspace=workspace)
        source = base.folder(Progress())
        config, tokenizer = AutoConfig.from_pretrained(source), AutoTokenizer.from_pretrained(source)
        settings = TrainingSettings(max_length=asked.max_length)
        max_length = min(recipe_for(config, settings).max_length, limit(tokenizer, config))
        lengths = Encoder(tokenizer, max_length).encode(train.texts).lengths
        names = ("torch", "transformers", "accelerate")
        libraries = [f"{name} {importlib.metadata.version(name)}" for name in names]
        where = device.device()
        print(f"{platform.machine()}, {os.cpu_count()} cores, {', '.join(libraries)}")
        print(
            f"{device.describe(where)}, ours in {device.precision(where)}, "
            f"Trainer in {'bf16' if asked.peer_bf16 else 'fp32'}"
        )
        print("load average before: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))
        print(
            f"{asked.base}: {len(train.texts):,} rows of {lengths.mean():.0f} tokens, at most {max_length}, "
            f"{asked.epochs} epoch(s), batches of {asked.batch_size}; judged on {len(test.texts):,} rows",
            flush=True,
        )
        if where.type != "cpu":  # kernels are loaded when they are first used
            few = Texts(train.texts[:320], train.labels[:320])
            ours(base, few, few, classes, 0, asked)
            peers(source, max_length, few, few, classes, 0, asked)
        seen: dict[str, list[Taken]] = {"ours": [], "trainer": []}
        rates = [matrix_rate()]
        seen_rows = len(train.texts) * asked.epochs
        for turn, seed in enumerate(asked.seeds):
            for side in ("ours", "trainer") if turn % 2 == 0 else ("trainer", "ours"):
                if asked.only not in (None, side):
                    continue
                taken = (
                    ours(base, train, test, classes, seed, asked)
                    if side == "ours"
                    else peers(source, max_length, train, test, classes, seed, asked)
                )
                seen[side].append(taken)
                rates.append(matrix_rate())
                print(
                    f"  seed {seed}, {side:7}: {seen_rows / taken.loop:6.2f} rows/s in the loop "
                    f"({taken.loop:.1f} s), {taken.whole - taken.loop:.1f} s around it, "
                    f"accuracy {taken.accuracy:.4f}; peak memory so far "
                    f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB",
                    flush=True,
                )
    for side, found in seen.items():
        if found:
            speeds = sorted(seen_rows / taken.loop for taken in found)
            accuracy = statistics.mean(taken.accuracy for taken in found)
            print(
                f"  {side}: {statistics.median(speeds):.2f} rows/s ({speeds[0]:.2f} to {speeds[-1]:.2f}), "
                f"mean accuracy {accuracy:.4f}"
            )
    if asked.only is None:
        kinds = {
            "in the loop": "loop",
            "in the loop, by processor time": "processor",
            "start-up and saving included": "whole",
        }
        for name, kind in kinds.items():
            ratios = [
                getattr(peer, kind) / getattr(own, kind)
                for own, peer in zip(seen["ours"], seen["trainer"], strict=True)
            ]
            print(
                f"  ratio {name}: {statistics.median(ratios):.2f} times "
                f"({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} pairs)"
            )
    rate = statistics.median(rates)
    print(f"  bf16 products of 2048 x 2048: {rate / 1e9:.0f} GFLOP/s ({device.describe(where)})")
    whole, computed = operations(config, lengths)
    for side, found in seen.items():
        if found:
            seconds = statistics.median(taken.loop for taken in found) / asked.epochs
            print(
                f"  {side}: {whole / seconds / 1e9:.0f} GFLOP/s counted as the model's, "
                f"{whole / seconds / rate:.0%} of that rate"
                + (
                    f"; {computed / seconds / rate:.0%} counting the layers that are computed for every token"
                    if side == "ours"
                    else ""
                )
            )
    print("load average after: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
