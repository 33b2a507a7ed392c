from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from thano_assets.learning.calibration import (
    FEWEST_ROWS,
    at_temperature,
    calibration_error,
    fit_temperature,
    scale_head,
)


def overconfident(rows: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from probabilities, and what a model says whose logits are ``temperature`` times too large."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(size=(rows, 3)) * 1.5
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([chance.choice(3, p=row) for row in proba])
    return at_temperature(proba, 1 / temperature), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 3.0])
def test_the_temperature_is_found_and_calibrates(temperature: float) -> None:
    proba, truth = overconfident(4000, temperature)
    found = fit_temperature(proba, truth)
    assert found == pytest.approx(temperature, rel=0.08)
    unseen, labels = overconfident(4000, temperature, seed=1)
    calibrated = at_temperature(unseen, found)
    assert calibration_error(labels, calibrated) < 0.03
    assert (calibrated.argmax(axis=1) == unseen.argmax(axis=1)).all()


def test_few_rows_change_nothing_and_some_change_little() -> None:
    proba, truth = overconfident(FEWEST_ROWS, 4.0)
    assert fit_temperature(proba[:-1], truth[:-1]) == 1.0
    right = np.tile([0.9, 0.05, 0.05], (FEWEST_ROWS, 1))
    # All rows right: without a prior the temperature would go to 0.
    assert 0.2 < fit_temperature(right, np.zeros(FEWEST_ROWS, dtype=np.int64)) < 1


def test_error_by_hand() -> None:
    proba = np.array([[0.9, 0.1]] * 4 + [[0.3, 0.7]] * 4)
    truth = np.array([0, 0, 0, 1, 1, 1, 0, 0])
    # confidence 0.9 and three of four right; confidence 0.7 and two of four
    assert calibration_error(truth, proba) == pytest.approx((0.15 * 4 + 0.2 * 4) / 8)


@pytest.mark.parametrize("kind", ["electra", "bert"])
def test_the_head_divides_the_logits(kind: str, tiny_electra: Path, tiny_bert: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = tiny_electra if kind == "electra" else tiny_bert
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    tokens = torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]])
    with torch.no_grad():
        before = model(tokens).logits
        assert scale_head(model, 1.7)
        after = model(tokens).logits
    assert before.abs().max() > 0
    torch.testing.assert_close(after, before / 1.7)
    # Everyone who loads the folder gets the same, without this package.
    model.save_pretrained(tmp_path / "saved")
    with torch.no_grad():
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()(tokens).logits
    torch.testing.assert_close(again, after)
