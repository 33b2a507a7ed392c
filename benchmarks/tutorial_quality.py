"""How good the tutorial's model is: accuracy on its test rows, over seeds, beside a linear baseline.

    python benchmarks/tutorial_quality.py [--seeds 42 1 2] [--epochs 1] [--batch-size 4] [--base ElectraEn]

Trains as BUILD MODEL … OPTIONS (epochs=1, batch_size=4) does on the 2,000 training rows, a tenth of them
held out, and judges on the 1,000 test rows. The baseline sees the rows that the model was trained on.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from thano_assets.learning.baseline import linear_baseline
from thano_assets.learning.holdout import hold_out
from thano_assets.learning.metrics import class_indices, scores
from thano_assets.learning.predict import Predictor
from thano_assets.learning.settings import TrainingSettings
from thano_assets.learning.train import train
from thano_assets.progress import Progress
from thano_assets.resources import base_models, datasets
from thano_assets.resources.environments import open_workspace


class Printing(Progress):
    """Progress as lines."""

    def message(self, text: str) -> None:
        """Print it."""
        print(f"  {text}", flush=True)

    warning = message


def main() -> None:
    """Train and judge once per seed; print a line each and the spread."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    options.add_argument("--epochs", type=int, default=1)
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--base", default="ElectraEn")
    options.add_argument("--train", default="full", choices=("full", "head"))
    options.add_argument("--max-length", type=int)
    chosen = options.parse_args()
    train_rows, test_rows = datasets.load_split("tutorial")
    texts, labels = train_rows["review"].to_pylist(), train_rows["sentiment"].to_pylist()
    test_texts, test_labels = test_rows["review"].to_pylist(), test_rows["sentiment"].to_pylist()
    classes = list(datasets.LABELS)
    truth, test_truth = class_indices(labels, classes), class_indices(test_labels, classes)
    accuracies, linear = [], []
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory() as folder:
            workspace = open_workspace(Path(folder) / "workspace")
            base = base_models.resolve(chosen.base, workspace=workspace)
            settings = TrainingSettings(
                epochs=chosen.epochs,
                batch_size=chosen.batch_size,
                seed=seed,
                train=chosen.train,
                max_length=chosen.max_length,
                baseline=False,
            )
            result = train(
                texts,
                labels,
                classes,
                base,
                settings,
                output_dir=Path(folder) / "model",
                checkpoint_dir=Path(folder) / "states",
                progress=Printing(),
            )
            started = time.monotonic()
            proba = Predictor.load(result.model_dir).predict(test_texts)
            answering = time.monotonic() - started
            single = Predictor.load(result.model_dir, precision="fp32").predict(test_texts)
        figures = scores(test_truth, proba)
        rows, _ = hold_out(truth, settings.eval_fraction, seed)
        baseline = linear_baseline([texts[row] for row in rows], truth[rows], test_texts, test_truth, seed)
        accuracies.append(figures["accuracy"])
        linear.append(baseline or 0.0)
        agree = np.mean(proba.argmax(axis=1) == single.argmax(axis=1))
        print(
            f"seed {seed}: accuracy {figures['accuracy']:.4f}, loss {figures['loss']:.4f}, "
            f"hold-out {result.metrics['accuracy']:.4f}, linear baseline {linear[-1]:.4f}; "
            f"trained in {result.seconds:.0f} s at {result.precision}, answered in {answering:.0f} s, "
            f"same label as fp32 for {agree:.2%}",
            flush=True,
        )
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    print(
        f"mean accuracy {statistics.mean(accuracies):.4f} (standard deviation {spread:.4f}), "
        f"linear baseline {statistics.mean(linear):.4f}"
    )
    whole = linear_baseline(texts, truth, test_texts, test_truth, chosen.seeds[0])
    print(f"linear baseline on all {len(texts):,} training rows, none held out: {whole:.4f}")


if __name__ == "__main__":
    main()
