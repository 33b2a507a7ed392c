"""A batch that a device's memory does not hold is computed in parts, and that is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thano_assets.errors import DeviceMemory
from thano_assets.learning import device, device_memory
from thano_assets.learning.device_memory import batches_in_memory, in_smaller_parts, token_budget
from thano_assets.progress import reporting_to

from .conftest import Place, Recorded, reviews
from .test_train import run

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learnt of the processor's memory ends with the test."""
    monkeypatch.setattr(device_memory, "_learnt", {})
    # There is no accelerator whose cache could be emptied on a machine without one.
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)


class Memory:
    """Holds so many tokens at a time."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.seen: list[int] = []

    def hold(self, tokens: int) -> None:
        if tokens > self.tokens:
            raise torch.OutOfMemoryError("full")
        self.seen.append(tokens)


def test_batches_are_halved_until_they_fit_and_keep_their_order(recorded: Recorded) -> None:
    lengths = np.array([40, 40, 30, 30, 20, 20, 10, 10])
    memory = Memory(70)

    def compute(rows: np.ndarray) -> list[int]:
        memory.hold(len(rows) * int(lengths[rows].max()))
        return rows.tolist()

    with reporting_to(recorded):
        batches = [np.arange(4), np.arange(4, 8)]
        found = list(batches_in_memory(CPU, batches, lambda rows: int(lengths[rows].max()), compute))
    assert [row for rows in found for row in rows] == list(range(8))
    assert max(memory.seen) <= 70
    # 4 texts of 40 tokens do not fit, nor do 2; 40 tokens at a time do.
    assert token_budget(CPU) == 40
    assert [line.partition(" do not")[0] for line in recorded.warnings] == [
        "4 texts of 40 tokens",
        "2 texts of 40 tokens",
    ]
    assert "at most 40 tokens are computed at a time" in recorded.warnings[-1]


def test_a_text_that_does_not_fit_by_itself_is_an_error() -> None:
    def compute(rows: np.ndarray) -> None:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(DeviceMemory, match="A text of 40 tokens does not fit") as caught:
        list(batches_in_memory(CPU, [np.arange(4)], lambda rows: 40, compute))
    assert "max_length" in caught.value.hint


def test_a_step_is_begun_again_with_smaller_parts(recorded: Recorded) -> None:
    sums: list[int] = []

    def compute(budget: int) -> int:
        for start in range(0, 8, max(1, budget // 100)):
            sums.append(start)
            if min(8 - start, budget // 100) > 2:
                raise torch.OutOfMemoryError("full")
        return len(sums)

    with reporting_to(recorded):
        assert in_smaller_parts(CPU, 8, 100, compute, sums.clear) == 4
    assert sums == [0, 2, 4, 6]
    assert len(recorded.warnings) == 2


def test_a_training_whose_batches_do_not_fit_gives_the_same_model(
    place: Place, tiny_electra, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import ElectraForSequenceClassification as Electra

    monkeypatch.setattr(device, "precision", lambda place: "fp32")
    texts, labels = reviews(48)
    options = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}
    whole = run(place, tiny_electra, texts, labels, recorded, name="whole", **options)
    assert not recorded.warnings

    forward = Electra.forward
    memory = Memory(60)

    def held(self, input_ids=None, **others):
        if self.training:
            memory.hold(input_ids.numel())
        return forward(self, input_ids=input_ids, **others)

    monkeypatch.setattr(Electra, "forward", held)
    # The class's own code for processors does without forward(); a GPU's training does not.
    monkeypatch.setattr("thano_assets.learning.first_token.supported", lambda model: False)
    with reporting_to(recorded):
        parts = run(place, tiny_electra, texts, labels, recorded, name="parts", **options)
    assert 0 < max(memory.seen) <= 60
    assert any("do not fit into the memory" in line for line in recorded.warnings)
    np.testing.assert_allclose(parts.held_out, whole.held_out, atol=2e-3)
