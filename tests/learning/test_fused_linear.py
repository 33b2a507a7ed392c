"""Fused layers compute what the layers did that they stand for, and only where they can."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from thano_assets.learning import fused_linear as fused
from thano_assets.learning.fused_linear import FusedLinear, fuse


def loaded(folder: Path, dtype: torch.dtype = torch.bfloat16) -> torch.nn.Module:
    model: torch.nn.Module = AutoModel.from_pretrained(folder, dtype=dtype).eval()
    return model


def layers(model: torch.nn.Module) -> int:
    return sum(isinstance(part, FusedLinear) for part in model.modules())


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_electra"])
def test_a_fused_model_gives_the_same_hidden_states(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    plain, quick = loaded(folder), fuse(loaded(folder))
    if not layers(quick):
        pytest.skip("this build of PyTorch has no fused layers")
    assert not any(isinstance(part, torch.nn.Linear) for part in quick.encoder.modules())
    ids = torch.arange(4, 24).reshape(2, 10)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    with torch.inference_mode():
        wanted = plain(input_ids=ids, attention_mask=mask)[0].float()
        found = quick(input_ids=ids, attention_mask=mask)[0].float()
    torch.testing.assert_close(found[0], wanted[0], atol=0.06, rtol=0.02)
    torch.testing.assert_close(found[1, :6], wanted[1, :6], atol=0.06, rtol=0.02)


def test_another_activation_stays_as_it_is(tiny_bert: Path) -> None:
    model = loaded(tiny_bert)
    kept = torch.nn.ReLU()
    model.encoder.layer[0].intermediate.intermediate_act_fn = kept  # type: ignore[union-attr, index]
    fuse(model)
    assert model.encoder.layer[0].intermediate.intermediate_act_fn is kept  # type: ignore[union-attr, index]


def test_full_precision_is_left_alone(tiny_bert: Path) -> None:
    assert layers(fuse(loaded(tiny_bert, torch.float32))) == 0


def test_without_the_operator_nothing_changes(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: FusedLinear, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no such operator")

    monkeypatch.setattr(fused.FusedLinear, "forward", missing)
    assert layers(fuse(loaded(tiny_bert))) == 0
