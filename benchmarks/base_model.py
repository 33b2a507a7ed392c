"""What a base model is worth: accuracy on test reviews by number of labelled rows, beside a linear model.

    python benchmarks/base_model.py --train train.parquet --test test.parquet
        [--base ElectraEn] [--rows 200 2000 25000] [--epochs 10 1 2] [--seeds 42 1 2] [--test-rows 5000]

Trains as BUILD MODEL does (batches of 4, no rows held out) on the first rows of a shuffle that the seed
gives, and judges on the first test rows. TF-IDF of words and word pairs with logistic regression sees the
same rows. `--base` is a name of the catalogue, or a folder where it has a slash.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from thano_assets.learning.baseline import linear_baseline
from thano_assets.learning.metrics import class_indices, scores
from thano_assets.learning.predict import Predictor
from thano_assets.learning.settings import TrainingSettings
from thano_assets.learning.train import train
from thano_assets.progress import SILENT
from thano_assets.resources import base_models
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.workspace import Workspace


def main() -> None:
    """Train and judge once per size and seed; print a line each and the means."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--train", required=True, help="Parquet with the columns review and sentiment")
    options.add_argument("--test", required=True, help="likewise")
    options.add_argument("--base", default="ElectraEn")
    options.add_argument("--rows", type=int, nargs="+", default=[200, 2000])
    options.add_argument("--epochs", type=int, nargs="+", default=[10, 1], help="one for each of --rows")
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    options.add_argument("--test-rows", type=int, default=5000)
    options.add_argument("--max-length", type=int)
    chosen = options.parse_args()
    if len(chosen.rows) != len(chosen.epochs):
        options.error("--epochs needs one number for each of --rows")
    table = pq.read_table(chosen.train, columns=["review", "sentiment"])
    test = pq.read_table(chosen.test, columns=["review", "sentiment"]).slice(0, chosen.test_rows)
    test_texts = test["review"].to_pylist()
    classes = sorted(set(test["sentiment"].to_pylist()))
    test_truth = class_indices(test["sentiment"].to_pylist(), classes)
    for count, epochs in zip(chosen.rows, chosen.epochs, strict=True):
        ours, linear = [], []
        for seed in chosen.seeds:
            rows = table.take(np.random.default_rng(seed).permutation(table.num_rows)[:count])
            texts, labels = rows["review"].to_pylist(), rows["sentiment"].to_pylist()
            with tempfile.TemporaryDirectory() as folder:
                workspace = open_workspace(Path(folder) / "workspace")
                base = base_models.resolve(
                    str(Path(chosen.base).resolve()) if "/" in chosen.base else chosen.base,
                    quoted="/" in chosen.base,
                    workspace=_Place(workspace, chosen.base),
                )
                settings = TrainingSettings(
                    epochs=epochs,
                    batch_size=chosen.batch_size,
                    seed=seed,
                    eval_fraction=0.0,
                    max_length=chosen.max_length,
                    baseline=False,
                )
                started = time.monotonic()
                result = train(
                    texts,
                    labels,
                    classes,
                    base,
                    settings,
                    output_dir=Path(folder) / "model",
                    checkpoint_dir=None,
                    progress=SILENT,
                )
                seconds = time.monotonic() - started
                proba = Predictor.load(result.model_dir).predict(test_texts)
            ours.append(scores(test_truth, proba)["accuracy"])
            truth = class_indices(labels, classes)
            linear.append(linear_baseline(texts, truth, test_texts, test_truth, seed) or 0.0)
            print(
                f"{count:,} rows x {epochs} epochs, seed {seed}: accuracy {ours[-1]:.4f}, linear baseline "
                f"{linear[-1]:.4f}; trained in {seconds:.0f} s",
                flush=True,
            )
        spread = statistics.stdev(ours) if len(ours) > 1 else 0.0
        print(
            f"{count:,} rows: mean accuracy {statistics.mean(ours):.4f} (standard deviation {spread:.4f}), "
            f"linear baseline {statistics.mean(linear):.4f}",
            flush=True,
        )


class _Place:
    """A workspace in which the folder of a base may be read too."""

    def __init__(self, workspace: Workspace, base: str) -> None:
        self.models_cache = workspace.models_cache
        extra = (Path(base).resolve(),) if "/" in base else ()
        self.readable_folders = (*workspace.readable_folders, *extra)


if __name__ == "__main__":
    main()
