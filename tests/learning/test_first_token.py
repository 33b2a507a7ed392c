from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

LENGTHS = [23, 17, 23, 5, 1]


def tiny(kind: str, embedding: int = 32, **options: Any) -> Any:
    """A classifier of three layers, weights at random, in training mode."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if kind != "distilbert" else {}
    size = {"embedding_size": embedding} if kind == "electra" else {}
    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": 60,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 40,
            "pad_token_id": 0,
            "num_labels": 3,
            "initializer_range": 0.3,
        }
        | size
        | rates
        | options,
    )
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return AutoModelForSequenceClassification.from_config(config).train()


def batch() -> dict[str, Any]:
    import torch

    ids = torch.randint(1, 60, (len(LENGTHS), 24), generator=torch.Generator().manual_seed(2))
    mask = torch.arange(24) < torch.tensor(LENGTHS)[:, None]
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def loss_and_gradients(model: Any, mixed: bool = False) -> tuple[Any, dict[str, Any]]:
    import torch

    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        logits = model(**batch()).logits
    loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 1, 0]))
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize(("kind", "embedding"), [("electra", 32), ("electra", 16), ("bert", 32)])
def test_loss_and_every_gradient_are_the_stock_models(kind: str, embedding: int) -> None:
    import torch

    from thano_assets.learning.first_token import trained_by_first_token

    model = tiny(kind, embedding)
    assert hasattr(model.base_model, "embeddings_project") == (embedding == 16)
    loss, gradients = loss_and_gradients(model)
    with trained_by_first_token(model) as fast:
        assert fast
        for _ in range(2):  # the second time in buffers that have been used
            again, found = loss_and_gradients(model)
            assert again == pytest.approx(loss, rel=1e-6)
            for name, wanted in gradients.items():
                torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=2e-6, msg=name)
    assert "forward" not in vars(model)
    assert loss_and_gradients(model)[0] == loss


@pytest.mark.parametrize("kind", ["electra", "bert"])
def test_bfloat16_is_as_near_to_float32_as_stock_mixed_precision(kind: str) -> None:
    from thano_assets.learning.first_token import trained_by_first_token

    model = tiny(kind)
    exact = loss_and_gradients(model)[1]

    def distance(found: dict[str, Any]) -> float:
        return float(sum((found[name] - exact[name]).square().sum() for name in exact)) ** 0.5

    stock = distance(loss_and_gradients(model, mixed=True)[1])
    with trained_by_first_token(model):
        assert distance(loss_and_gradients(model, mixed=True)[1]) < 1.5 * stock


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("mixed", [True, False])
def test_steps_of_the_optimiser_are_seen(fused: bool, mixed: bool) -> None:
    """Two models that learn side by side, one of them ours, stay together."""
    import torch

    from thano_assets.learning.first_token import trained_by_first_token

    def losses(model: Any) -> list[float]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, eps=1e-2, fused=fused)
        found = []
        for _ in range(8):
            found.append(loss_and_gradients(model, mixed)[0])
            optimizer.step()
        return found

    wanted = losses(tiny("electra"))
    model = tiny("electra")
    with trained_by_first_token(model):
        found = losses(model)
        with torch.inference_mode():
            judged = model(**batch()).logits
        loss_and_gradients(model, mixed)  # buffers and copies made while judging serve training too
    assert found == pytest.approx(wanted, rel=0.1 if mixed else 1e-4)
    assert wanted[-1] < 0.8 * wanted[0]
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(**batch()).logits, judged, rtol=1e-4, atol=1e-5)


def test_gradients_of_dropout_are_those_of_what_was_dropped() -> None:
    """Along a direction, with the same random numbers, the loss changes as the gradients say."""
    import torch

    from thano_assets.learning.first_token import trained_by_first_token

    model = tiny("electra", hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3, initializer_range=0.1)
    torch.manual_seed(1)
    direction = [torch.randn_like(weight) for weight in model.parameters()]

    def moved(by: float) -> tuple[float, dict[str, Any]]:
        with torch.no_grad():
            for weight, along in zip(model.parameters(), direction, strict=True):
                weight += by * along
        torch.manual_seed(8)
        return loss_and_gradients(model)

    with trained_by_first_token(model):
        start, gradients = moved(0.0)
        other = loss_and_gradients(model)[0]
        assert other != start  # the next random numbers
        step = 1e-3
        above, _ = moved(step)
        below, _ = moved(-2 * step)
    slope = sum(
        float((gradients[name] * along).sum()) for name, along in zip(gradients, direction, strict=True)
    )
    assert (above - below) / (2 * step) == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize("kind", ["bfloat16", "float32"])
@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_the_share_that_is_dropped_is_the_rate(kind: str, rate: float) -> None:
    import torch

    from thano_assets.learning.layers import _drop_by_sign, _hidden_mask

    torch.manual_seed(3)
    whole = torch.rand(200, 1000).add_(0.1).to(getattr(torch, kind))
    signed = whole.clone()
    _drop_by_sign(signed, rate)
    assert torch.equal(signed.abs(), whole)
    assert float((signed < 0).float().mean()) == pytest.approx(rate, abs=0.005)
    mask = _hidden_mask(whole, rate)
    assert mask is not None
    assert float((mask == 0).float().mean()) == pytest.approx(rate, abs=0.005)
    assert float(mask.float().mean()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny("roberta", max_position_embeddings=42),
        lambda: tiny("electra", hidden_act="relu"),
        lambda: tiny("bert", is_decoder=True),
        lambda: tiny("electra").double(),
    ],
    ids=["roberta", "relu", "decoder", "double"],
)
def test_other_models_are_left_to_transformers(make: Callable[[], Any]) -> None:
    from thano_assets.learning.first_token import trained_by_first_token

    model = make()
    with trained_by_first_token(model) as fast:
        assert not fast
        assert "forward" not in vars(model)


def test_calls_of_another_kind_are_left_to_transformers() -> None:
    import torch

    from thano_assets.learning.first_token import trained_by_first_token

    model = tiny("bert").eval()
    given = batch()
    left = {name: value.flip(1) for name, value in given.items()}
    calls: list[dict[str, Any]] = [
        left,
        {"input_ids": given["input_ids"]},
        given | {"labels": torch.zeros(len(LENGTHS), dtype=torch.long)},
    ]
    for call in calls:
        wanted = model(**call)
        with trained_by_first_token(model):
            found = model(**call)
        assert torch.equal(found.logits, wanted.logits)
        assert (found.loss is None) == (wanted.loss is None)


def test_gradients_by_row_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from thano_assets.learning import optim

    monkeypatch.setattr(optim, "_LARGE", 1)

    def trained(by_row: bool) -> dict[str, Any]:
        model = tiny("electra")
        weights = list(model.parameters())
        optimizer = torch.optim.AdamW(weights, lr=1e-2, eps=1e-3, weight_decay=0.1, fused=True)
        gradients = optim.Gradients(weights)
        with optim.gradients_by_row(model, by_row):
            for step in range(4):
                for part in (slice(0, 2), slice(2, 5)):  # gradients of two parts add up
                    given = {name: value[part] for name, value in batch().items()}
                    given["input_ids"] = (given["input_ids"] + step) % 60
                    model(**given, labels=torch.tensor([0, 1, 2, 1, 0])[part]).loss.backward()
                if by_row:
                    assert model.electra.embeddings.word_embeddings.weight.grad.is_sparse
                    gradients.clip(0.5)
                else:
                    torch.nn.utils.clip_grad_norm_(weights, 0.5)
                optimizer.step()
                gradients.clear()
        return dict(model.state_dict())

    whole, rows = trained(False), trained(True)
    for name, wanted in whole.items():
        torch.testing.assert_close(rows[name], wanted, rtol=1e-5, atol=1e-6, msg=name)
