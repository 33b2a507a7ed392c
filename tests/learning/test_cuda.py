"""What is computed on a GPU is what a processor computes. Needs a CUDA device."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from thano_assets.errors import DeviceMemory
from thano_assets.learning import device, device_memory
from thano_assets.learning.device_memory import token_budget
from thano_assets.learning.embed import Embedder
from thano_assets.learning.explain import Explainer
from thano_assets.learning.predict import Predictor
from thano_assets.progress import reporting_to

from .conftest import Place, Recorded, make_tiny, reviews
from .test_train import base_of, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
CPU = torch.device("cpu")
TEXTS = ["good film", "the plot was dull and the cast was poor", None, "awful music", "fine " * 30]


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(device_memory, "_learnt", {})
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def on_cpu(monkeypatch: pytest.MonkeyPatch, work):
    with monkeypatch.context() as patch:
        patch.setattr(device, "device", lambda: CPU)
        return work()


@pytest.mark.parametrize("kind", ["electra", "bert", "roberta"])
def test_a_model_trained_on_a_gpu_learns_and_answers_the_same_on_a_processor(
    place: Place, tmp_path: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    base = make_tiny(tmp_path / kind, kind=kind)
    texts, labels = reviews(120)
    result = run(place, base, texts, labels, recorded, epochs=8, learning_rate=3e-3)
    assert result.device.startswith("cuda (")
    assert result.precision == "bf16"
    assert result.metrics["accuracy"] > 0.9
    for precision, within in (("fp32", 1e-5), ("bf16", 0.05)):
        there = Predictor.load(result.model_dir, precision=precision)
        assert there.device.startswith("cuda")
        here = on_cpu(monkeypatch, lambda: Predictor.load(result.model_dir, precision="fp32"))
        assert here.device.startswith("cpu")
        found, wanted = there.predict(TEXTS), here.predict(TEXTS)
        assert np.isnan(found[2]).all()
        np.testing.assert_allclose(found, wanted, atol=within)


def test_a_head_is_trained_on_what_the_encoder_gives(
    place: Place, tiny_electra: Path, recorded: Recorded
) -> None:
    texts, labels = reviews(120)
    result = run(place, tiny_electra, texts, labels, recorded, train="head", epochs=40, learning_rate=1e-2)
    assert result.metrics["accuracy"] > 0.8


def test_a_killed_training_goes_on_with_the_losses_it_had(
    place: Place, tiny_electra: Path, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, labels = reviews(160)
    options = {"epochs": 3, "batch_size": 8}
    whole = run(place, tiny_electra, texts, labels, recorded, name="whole", **options)

    def stop(figures: dict[str, float], step: int) -> None:
        if step >= 25:
            raise KeyboardInterrupt

    states = tmp_path / "states"
    with pytest.raises(KeyboardInterrupt):
        run(
            place, tiny_electra, texts, labels, recorded,
            name="cut", checkpoint_dir=states, on_metrics=stop, **options,
        )  # fmt: skip
    kept = json.loads((states / "latest" / "loop.json").read_text())["values"]
    assert len(kept["losses"]) == kept["step"] > 0
    again = run(place, tiny_electra, texts, labels, recorded, name="cut", checkpoint_dir=states, **options)
    assert any(line.startswith("Going on from step") for line in recorded.messages)
    assert [point["step"] for point in again.history] == [point["step"] for point in whole.history]
    np.testing.assert_allclose(again.held_out, whole.held_out, atol=0.02)


def test_vectors_are_those_of_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_tiny(tmp_path / "bert", kind="bert")
    there = Embedder.load(base, precision="fp32")
    here = on_cpu(monkeypatch, lambda: Embedder.load(base, precision="fp32"))
    np.testing.assert_allclose(there.embed(TEXTS), here.embed(TEXTS), atol=1e-5)


def test_reasons_are_those_of_a_processor(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, labels = reviews(120)
    result = run(place, tiny_electra, texts, labels, recorded, epochs=8, learning_rate=3e-3)
    asked = (["good film", "the film was dull and poor"], [0, 1])
    monkeypatch.setattr(device, "precision", lambda place: "fp32")
    [there] = Explainer.load(result.model_dir).explain_batches([asked], 10)
    [here] = on_cpu(monkeypatch, lambda: list(Explainer.load(result.model_dir).explain_batches([asked], 10)))
    for one, other in zip(there, here, strict=True):
        assert dict(one.words) == pytest.approx(dict(other.words), abs=0.01)


def test_a_base_model_is_trained(place: Place, tmp_path: Path, recorded: Recorded) -> None:
    from thano_assets.learning.pretrain import pretrain
    from thano_assets.learning.settings import PretrainingSettings

    base = make_tiny(tmp_path / "masked", mask=True)
    texts, _ = reviews(300)
    result = pretrain(
        [f"{number} {text}" for number, text in enumerate(texts)],
        base_of(base, place),
        PretrainingSettings(epochs=2, batch_size=16),
        output_dir=tmp_path / "out",
        checkpoint_dir=None,
        progress=recorded,
    )
    assert result.device.startswith("cuda (")
    losses = [point["generator_loss"] for point in result.history]
    assert losses[-1] < losses[0]
    assert (tmp_path / "out" / "model.safetensors").is_file()


def long_reviews(count: int) -> tuple[list[str], list[str]]:
    texts, labels = reviews(count)
    return [f"{text} " + "and then " * 240 for text in texts], labels


def test_a_batch_that_the_memory_does_not_hold_is_computed_in_parts(
    place: Place, tmp_path: Path, recorded: Recorded
) -> None:
    base = make_tiny(tmp_path / "long", positions=512)
    texts, labels = long_reviews(1024)
    options = {"epochs": 1, "batch_size": 128, "eval_fraction": 0.25}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    whole = run(place, base, texts, labels, recorded, name="whole", **options)
    used = torch.cuda.max_memory_reserved() - before
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + used // 3
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    with reporting_to(recorded):
        parts = run(place, base, texts, labels, recorded, name="parts", **options)
    assert any("tokens are computed at a time from here on" in line for line in recorded.warnings)
    assert token_budget(device.device()) < 65536
    np.testing.assert_allclose(parts.held_out, whole.held_out, atol=0.02)


def test_a_model_that_does_not_fit_is_an_error(place: Place, tmp_path: Path, recorded: Recorded) -> None:
    base = make_tiny(tmp_path / "long", positions=512)
    texts, labels = long_reviews(64)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved() + (2 << 20)) / torch.cuda.get_device_properties(0).total_memory
    )
    with pytest.raises(DeviceMemory, match="does not fit into the memory of"):
        run(place, base, texts, labels, recorded, eval_fraction=0.0)
    assert not (place.root / "out").exists()
