from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

from thano_assets.errors import InvalidOption, TrainingDataError
from thano_assets.learning.settings import TrainingSettings
from thano_assets.resources.base_models import resolve
from thano_assets.resources.resolved_base import ResolvedBase

from .conftest import Place, Recorded, reviews

FAST = {"epochs": 4, "batch_size": 4, "learning_rate": 3e-3}


def base_of(folder: Path, place: Place) -> ResolvedBase:
    place.models_cache.mkdir(exist_ok=True)
    link = place.models_cache / folder.name
    if not link.exists():
        import shutil

        shutil.copytree(folder, link)
    return resolve(folder.name, quoted=True, workspace=place)


def run(place: Place, folder: Path, texts, labels, recorded, name="out", **options):
    from thano_assets.learning.train import train

    extra = {key: options.pop(key) for key in ("init_dir", "on_metrics", "checkpoint_dir") if key in options}
    return train(
        texts,
        labels,
        sorted(set(labels)),
        base_of(folder, place),
        TrainingSettings(**FAST | options),
        output_dir=place.root / name,
        checkpoint_dir=extra.pop("checkpoint_dir", None),
        progress=recorded,
        **extra,
    )


def test_four_classes_are_learned_saved_and_loaded_elsewhere(
    place: Place, tiny_electra: Path, recorded: Recorded
) -> None:
    from transformers import pipeline

    texts, labels = reviews(160, classes=4)
    points: list[int] = []
    result = run(
        place,
        tiny_electra,
        pa.chunked_array([texts[:50], texts[50:]]),
        labels,
        recorded,
        on_metrics=lambda figures, step: points.append(step),
    )
    held = result.rows_eval  # a tenth of the distinct texts, some of which stand in several rows
    assert (result.rows_train, held) == (143, 17)
    assert result.metrics["accuracy"] >= 0.9
    assert result.metrics["accuracy"] == np.trace(result.confusion) / held
    assert result.majority_accuracy == 3 / held
    assert result.baseline_accuracy is not None
    losses = [row["loss"] for row in result.history if "loss" in row]
    assert losses[-1] < losses[0] / 2
    assert [row["epoch"] for row in result.history if "eval_loss" in row] == [1, 2, 3, 4]
    assert points
    assert points[-1] == result.history[-1]["step"] == 4 * 36
    assert result.settings["learning_rate"] == 3e-3

    stock = pipeline("text-classification", model=str(result.model_dir))
    assert stock("awful film")[0]["label"] == "c1"
    assert stock("awful film " * 300, truncation=True)[0]["label"] in result.classes


def test_same_input_gives_same_weights(place: Place, tiny_electra: Path, recorded: Recorded) -> None:
    texts, labels = reviews(60)
    one = run(place, tiny_electra, texts, labels, recorded, "one", epochs=1)
    two = run(place, tiny_electra, texts, labels, recorded, "two", epochs=1)
    other = run(place, tiny_electra, texts, labels, recorded, "other", epochs=1, seed=7)
    assert one.metrics == two.metrics
    first, second = (load_file(result.model_dir / "model.safetensors") for result in (one, two))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert one.metrics != other.metrics


def test_global_random_state_of_the_caller_is_left_alone(
    place: Place, tiny_electra: Path, recorded: Recorded
) -> None:
    import torch

    texts, labels = reviews(20)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(place, tiny_electra, texts, labels, recorded, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_killed_training_goes_on_and_ends_the_same(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thano_assets.learning import checkpoint

    texts, labels = reviews(80)
    states = place.root / "states"
    monkeypatch.setattr(checkpoint.Checkpoints.__init__, "__defaults__", (0.0,))  # keep every step
    through = run(place, tiny_electra, texts, labels, recorded, "through", epochs=2, batch_size=4)

    def stop(figures: dict[str, float], step: int) -> None:
        if step == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            place,
            tiny_electra,
            texts,
            labels,
            recorded,
            "again",
            epochs=2,
            batch_size=4,
            checkpoint_dir=states,
            on_metrics=stop,
        )
    assert not (place.root / "again").exists()
    kept = json.loads((states / "latest" / "loop.json").read_text())["values"]["step"]
    assert 20 <= kept < 25
    again = run(
        place, tiny_electra, texts, labels, recorded, "again", epochs=2, batch_size=4, checkpoint_dir=states
    )
    assert f"Going on from step {kept} of 36" in recorded.messages
    assert not list(states.iterdir())
    assert again.metrics["loss"] == pytest.approx(through.metrics["loss"], abs=1e-6)
    first, second = (load_file(result.model_dir / "model.safetensors") for result in (through, again))
    assert all(np.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_a_state_of_another_training_is_not_used(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thano_assets.learning import checkpoint

    monkeypatch.setattr(checkpoint.Checkpoints.__init__, "__defaults__", (0.0,))
    texts, labels = reviews(40)
    states = place.root / "states"

    def stop(figures: dict[str, float], step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            place, tiny_electra, texts, labels, recorded, checkpoint_dir=states, on_metrics=stop, batch_size=1
        )
    run(place, tiny_electra, [*texts[1:], "good"], labels, recorded, checkpoint_dir=states, epochs=1)
    assert not [message for message in recorded.messages if "Going on" in message]


def test_long_texts_are_reported(place: Place, tiny_electra: Path, recorded: Recorded) -> None:
    texts, labels = reviews(30)
    texts[3] = "good " * 60
    result = run(place, tiny_electra, texts, labels, recorded, epochs=1)
    assert (result.truncated, result.max_length) == (1, 40)
    assert recorded.warnings[0].startswith("1 of 30 texts are longer than 40 tokens")
    short = run(place, tiny_electra, texts, labels, recorded, "short", epochs=1, max_length=6)
    assert short.max_length == 6
    assert json.loads((short.model_dir / "tokenizer_config.json").read_text())["model_max_length"] == 6


def test_without_a_hold_out_there_are_no_figures(
    place: Place, tiny_electra: Path, recorded: Recorded
) -> None:
    texts, labels = reviews(20)
    result = run(place, tiny_electra, texts, labels, recorded, epochs=1, eval_fraction=0.0)
    assert (result.rows_train, result.rows_eval, result.confusion) == (20, 0, [])
    assert set(result.metrics) == {"train_loss"}
    assert result.baseline_accuracy is None
    assert result.majority_accuracy is None


def test_two_rows_can_be_trained_on(place: Place, tiny_electra: Path, recorded: Recorded) -> None:
    result = run(place, tiny_electra, ["good", "bad"], ["c0", "c1"], recorded, epochs=1, early_stopping=1)
    assert (result.rows_train, result.rows_eval) == (2, 0)


def test_early_stopping_keeps_the_best_epoch(place: Place, tiny_electra: Path, recorded: Recorded) -> None:
    texts, labels = reviews(60)
    labels = ["c0" if row % 3 else "c1" for row in range(60)]  # unrelated to the texts: it can only get worse
    result = run(place, tiny_electra, texts, labels, recorded, epochs=30, early_stopping=1, eval_fraction=0.3)
    judged = [row["eval_loss"] for row in result.history if "eval_loss" in row]
    assert len(judged) < 30
    assert result.metrics["loss"] == pytest.approx(min(judged), rel=1e-5)
    assert any(message.startswith("Stopped early") for message in recorded.messages)


def test_balanced_class_weights_give_the_rare_class_its_say(
    place: Place, tiny_electra: Path, recorded: Recorded
) -> None:
    from thano_assets.learning.predict import Predictor

    texts = ["good film"] * 190 + ["bad film"] * 10 + ["good film"] * 10  # one text, two labels: 190 to 10
    labels = ["c0"] * 190 + ["c1"] * 20
    rare = {}
    for weight in (None, "balanced"):
        result = run(
            place,
            tiny_electra,
            texts,
            labels,
            recorded,
            str(weight),
            class_weight=weight,
            eval_fraction=0.0,
            epochs=15,
            batch_size=70,
        )
        rare[weight] = Predictor.load(result.model_dir).predict(["good film"])[0, 1]
    # Plain: about 10 / 200. Balanced: 10 / 20 of the rare class's weight against all of the other's, a third.
    assert rare[None] < 0.15
    assert 0.2 < rare["balanced"] < 0.5


def test_fit_goes_on_from_the_parent(place: Place, tiny_electra: Path, recorded: Recorded) -> None:
    texts, labels = reviews(80)
    parent = run(place, tiny_electra, texts, labels, recorded, "parent", max_length=10)
    child = run(
        place,
        tiny_electra,
        texts,
        labels,
        recorded,
        "child",
        epochs=1,
        learning_rate=1e-6,
        init_dir=parent.model_dir,
    )
    assert child.metrics["loss"] == pytest.approx(parent.metrics["loss"], abs=0.05)
    assert child.max_length == 10


@pytest.mark.parametrize("kind", ["tiny_electra", "tiny_bert"])
def test_head_mode_leaves_the_encoder_as_it_was(
    place: Place, kind: str, recorded: Recorded, request: pytest.FixtureRequest
) -> None:
    from thano_assets.learning.predict import Predictor

    folder = request.getfixturevalue(kind)
    texts, labels = reviews(160)
    result = run(place, folder, texts, labels, recorded, train="head", epochs=40, learning_rate=3e-3)
    before, after = load_file(folder / "model.safetensors"), load_file(result.model_dir / "model.safetensors")
    prefix = kind.removeprefix("tiny_") + "."
    encoder = {name for name in before if "pooler" not in name}
    assert encoder
    for name in encoder:
        assert np.array_equal(before[name], after[prefix + name]), name
    answers = Predictor.load(result.model_dir).predict(texts)
    guessed = [result.classes[place] for place in answers.argmax(axis=1)]
    assert (
        np.mean([guess == label for guess, label in zip(guessed, labels, strict=True)]) >= 0.75
    )  # features at random; 0.5 is chance


@pytest.mark.parametrize(
    ("texts", "labels", "classes", "sentence"),
    [
        ([], [], ["a", "b"], "no rows"),
        (["x", "y"], ["a", "a"], ["a"], "has 1 class, 'a'"),
        (["x", "y"], ["a", "a"], ["a", "b"], "No row has the label 'b'"),
        (["x", "y"], ["a", "c"], ["a", "b"], "holds 'c'"),
    ],
)
def test_rows_that_cannot_be_trained_on(
    place: Place, tiny_electra: Path, recorded: Recorded, texts, labels, classes, sentence
) -> None:
    from thano_assets.learning.train import train

    with pytest.raises(TrainingDataError, match=sentence):
        train(
            texts,
            labels,
            classes,
            base_of(tiny_electra, place),
            TrainingSettings(),
            output_dir=place.root / "out",
            checkpoint_dir=None,
            progress=recorded,
        )
    assert not (place.root / "out").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"eval_fraction": 1.0}, "eval_fraction=1.0"),
        ({"train": "half"}, "train='half'"),
        ({"early_stopping": 1, "eval_fraction": 0.0}, "early_stopping=1"),
        ({"class_weight": "heavy"}, "class_weight='heavy'"),
    ],
)
def test_settings_are_checked(options: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidOption, match=named):
        TrainingSettings(**options)  # type: ignore[arg-type]


def test_a_batch_in_parts_gives_the_same_model(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thano_assets.learning import device, device_memory

    monkeypatch.setattr(device, "precision", lambda place: "fp32")
    texts, labels = reviews(40, classes=4)
    labels = [label if row % 3 else "c0" for row, label in enumerate(labels)]
    options = {"epochs": 1, "batch_size": 12, "class_weight": "balanced"}
    whole = run(place, tiny_electra, texts, labels, recorded, "whole", **options)
    monkeypatch.setattr(device_memory, "token_budget", lambda place: 30)
    parts = run(place, tiny_electra, texts, labels, recorded, "parts", **options)
    first, second = (load_file(result.model_dir / "model.safetensors") for result in (whole, parts))
    assert all(np.allclose(first[name], second[name], atol=1e-4) for name in first)
    assert whole.metrics["train_loss"] == pytest.approx(parts.metrics["train_loss"], rel=1e-4)


def test_parts_side_by_side_give_the_model_of_the_whole_and_always_the_same(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from thano_assets.learning import device, optim

    monkeypatch.setattr(device, "precision", lambda place: "fp32")
    monkeypatch.setattr(optim, "_LARGE", 1)  # a large vocabulary's gradients are sparse
    texts, labels = reviews(40, classes=4)
    labels = [label if row % 3 else "c0" for row, label in enumerate(labels)]
    options = {"epochs": 1, "batch_size": 7, "class_weight": "balanced", "eval_fraction": 0.1}
    whole = run(place, tiny_electra, texts, labels, recorded, "whole", **options)
    assert whole.settings["dropout"] == 0  # else parts are not computed side by side
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        one, two = (
            run(place, tiny_electra, texts, labels, recorded, name, **options) for name in ("one", "two")
        )
    finally:
        torch.set_num_threads(threads)
    first, second, third = (load_file(found.model_dir / "model.safetensors") for found in (whole, one, two))
    assert all(np.array_equal(second[name], third[name]) for name in second)
    assert all(np.allclose(first[name], second[name], atol=1e-4) for name in first)
    assert whole.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], rel=1e-4)
