from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from thano_assets.errors import TrainingDataError
from thano_assets.learning.settings import PretrainingSettings

from .conftest import WORDS, Place, Recorded, make_tiny
from .test_train import base_of

# A language with one rule: after a word comes the next of the list.
SENTENCES = [" ".join(WORDS[(start + place) % len(WORDS)] for place in range(24)) for start in range(400)]
FAST = {"batch_size": 16, "learning_rate": 2e-3, "max_length": 26, "eval_fraction": 0.1}


def run(place: Place, folder: Path, texts, recorded, name="out", **options):
    from thano_assets.learning.pretrain import pretrain

    extra = {key: options.pop(key) for key in ("on_metrics", "checkpoint_dir") if key in options}
    return pretrain(
        texts,
        base_of(folder, place),
        PretrainingSettings(**FAST | options),
        output_dir=place.root / name,
        checkpoint_dir=extra.pop("checkpoint_dir", None),
        progress=recorded,
        **extra,
    )


@pytest.fixture(params=["electra", "bert"])
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_tiny(tmp_path / f"tiny-{request.param}", kind=request.param, mask=True)


def test_the_encoder_learns_what_was_replaced_and_loads_elsewhere(
    place: Place, tiny: Path, recorded: Recorded
) -> None:
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    steps: list[int] = []
    result = run(
        place, tiny, SENTENCES, recorded, epochs=4, on_metrics=lambda figures, step: steps.append(step)
    )
    assert (result.rows_train, result.rows_eval) == (360, 40)
    assert result.tokens == 4 * 360 * 26
    assert 0.5 < result.metrics["discriminator_accuracy"] < 1
    assert result.history[-1]["discriminator_loss"] < result.history[0]["discriminator_loss"] / 1.5
    assert result.history[-1]["generator_loss"] < result.history[0]["generator_loss"]
    assert steps[-1] == result.history[-1]["step"] == 4 * 23

    encoder = AutoModel.from_pretrained(result.model_dir)
    assert encoder.config.hidden_dropout_prob == 0.1  # what the base had; none while pre-training
    before = load_file(tiny / "model.safetensors")
    assert not np.array_equal(
        encoder.embeddings.word_embeddings.weight.detach().numpy(),
        before["embeddings.word_embeddings.weight"],
    )
    classifier, info = AutoModelForSequenceClassification.from_pretrained(
        result.model_dir, output_loading_info=True
    )
    assert all("classifier" in name or "pooler" in name for name in info["missing_keys"])
    assert AutoTokenizer.from_pretrained(result.model_dir).mask_token == "[MASK]"
    assert classifier.config.num_hidden_layers == 2


def test_the_generator_leaves_the_encoder_alone(tiny: Path) -> None:
    import torch
    from transformers import AutoModel

    from thano_assets.learning.replaced_tokens import ReplacedTokenDetection

    model = ReplacedTokenDetection(AutoModel.from_pretrained(tiny), mask_id=4, attention="eager")
    ids = torch.randint(5, 39, (3, 8))
    chosen = torch.zeros(3, 8, dtype=torch.bool)
    chosen[:, 2] = chosen[0, 5] = True
    found = model(ids, torch.ones_like(ids), chosen, torch.zeros_like(chosen), torch.rand(3, 8))
    generator_loss = found["loss"] - 50 * found["discriminator_loss"]
    assert generator_loss.item() == pytest.approx(found["generator_loss"].item(), rel=1e-4)
    assert found["masked"] == 4
    assert found["replaced"] <= 4
    assert found["tokens"] == 24
    names = {id(p): name for name, p in model.named_parameters()}
    assert not any(name.startswith("generator.embeddings.") for name in names.values())
    model.zero_grad()
    hidden = model.generator(input_ids=ids).last_hidden_state
    hidden.sum().backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())


def test_the_packaged_base_keeps_its_pooling_layer_on_top(place: Place, recorded: Recorded) -> None:
    from transformers import AutoModel

    from thano_assets.learning.pretrain import pretrain
    from thano_assets.resources.base_models import resolve

    base = resolve("ElectraEn", workspace=place, network=False)
    if base.source != "package":
        pytest.skip("another source has ElectraEn here")
    result = pretrain(
        ["A film that I would gladly see again.", "Two hours of my life are gone."] * 4,
        base,
        PretrainingSettings(batch_size=4, max_length=16, eval_fraction=0.0),
        output_dir=place.root / "out",
        checkpoint_dir=None,
        progress=recorded,
    )
    assert "discriminator_loss" not in result.metrics  # no rows were held out
    before = AutoModel.from_pretrained(base.folder())
    after = AutoModel.from_pretrained(result.model_dir)
    assert len(after.encoder.layer) == len(before.encoder.layer)
    top, below = after.encoder.layer[-1], after.encoder.layer[-2]
    assert not top.attention.self.query.weight.any()
    assert top.attention.self.value.weight.equal(before.encoder.layer[-1].attention.self.value.weight)
    assert top.intermediate.dense.weight.equal(below.intermediate.dense.weight)
    assert not below.intermediate.dense.weight.equal(before.encoder.layer[-2].intermediate.dense.weight)


def test_a_killed_pretraining_goes_on_and_ends_the_same(
    place: Place, tiny_electra_with_mask: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thano_assets.learning import pretrain

    monkeypatch.setattr(pretrain, "_STATES_APART", 0.0)
    states = place.root / "states"
    through = run(place, tiny_electra_with_mask, SENTENCES, recorded, "through", epochs=2)

    def stop(figures: dict[str, float], step: int) -> None:
        if step == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            place,
            tiny_electra_with_mask,
            SENTENCES,
            recorded,
            "again",
            epochs=2,
            checkpoint_dir=states,
            on_metrics=stop,
        )
    assert not (place.root / "again").exists()
    kept = json.loads((states / "latest" / "loop.json").read_text())["values"]["step"]
    assert kept == 29
    again = run(place, tiny_electra_with_mask, SENTENCES, recorded, "again", epochs=2, checkpoint_dir=states)
    assert f"Going on from step {kept} of 46" in recorded.messages
    assert not list(states.iterdir())
    assert again.tokens == through.tokens
    first, second = (load_file(result.model_dir / "model.safetensors") for result in (through, again))
    assert all(np.allclose(first[name], second[name], atol=1e-6) for name in first)


@pytest.fixture
def tiny_electra_with_mask(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "tiny", mask=True)


def test_long_texts_are_read_whole_in_windows(
    place: Place, tiny_electra_with_mask: Path, recorded: Recorded
) -> None:
    long = " ".join(WORDS[place % len(WORDS)] for place in range(200))
    result = run(place, tiny_electra_with_mask, [long], recorded, epochs=1, max_length=30, eval_fraction=0.0)
    assert result.tokens == 200 + 2 * 8 - (200 % 28 + 2 if 200 % 28 < 16 else 0)


def test_what_cannot_be_trained_is_said(
    place: Place, tiny_electra: Path, tmp_path: Path, recorded: Recorded
) -> None:
    with pytest.raises(TrainingDataError, match="no texts"):
        run(place, tiny_electra, [], recorded)
    with pytest.raises(TrainingDataError, match="no token for masking"):
        run(place, tiny_electra, ["good film"], recorded)
    other = make_tiny(tmp_path / "tiny-roberta", kind="roberta", mask=True)
    with pytest.raises(TrainingDataError, match="ROBERTA"):
        run(place, other, ["good film"], recorded)
