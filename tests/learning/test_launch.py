"""One training in several processes: on a machine without GPUs, by gloo on the processor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from thano_assets.errors import InvalidOption, TrainingStopped

from .conftest import Place, Recorded, make_tiny, reviews
from .test_train import base_of, run


def fitted(rank: int, size: int, port: int, folder: Path, balanced: bool) -> None:
    """Train a small float32 model in one of ``size`` processes; the first leaves its weights and losses."""
    os.environ |= {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    from accelerate import Accelerator

    from thano_assets.learning.checkpoint import Checkpoints
    from thano_assets.learning.loop import Rows, balanced_weights, fit
    from thano_assets.learning.process_group import ProcessGroup
    from thano_assets.learning.recipes import Recipe
    from thano_assets.learning.settings import TrainingSettings
    from thano_assets.progress import SILENT

    torch.manual_seed(rank)  # processes start apart; the first one's weights count
    accelerator = Accelerator()
    group = ProcessGroup(accelerator)
    assert group.size == size
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    model.base_model_prefix = "none"
    data = np.random.default_rng(0)
    inputs = torch.from_numpy(data.normal(size=(22, 6)).astype(np.float32))
    truth = data.choice(3, size=22, p=[0.6, 0.3, 0.1])
    lengths = data.integers(1500, 3000, size=22)  # a batch is computed in parts
    weights = balanced_weights(truth, 3) if balanced else None
    history = fit(
        model,
        lambda rows: model(inputs[torch.from_numpy(rows)]),
        Rows(np.arange(22), lengths, truth, weights),
        Recipe(1e-2, clip=0.1),
        TrainingSettings(epochs=2, batch_size=7, eval_fraction=0.0),  # the last batch has one row
        accelerator,
        group,
        precision="fp32",
        side_by_side=False,
        checkpoints=Checkpoints(None, ""),
        progress=SILENT,
        judge=None,
        on_metrics=lambda figures, step: None,
    )
    if group.leads:
        losses = [point["loss"] for point in history]
        torch.save({"weights": list(model.parameters()), "losses": losses}, folder / f"{size}.pt")
    group.wait()
    if size > 1:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("balanced", [False, True])
def test_several_processes_take_the_steps_of_one(tmp_path: Path, balanced: bool) -> None:
    for size in (1, 3):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        torch.multiprocessing.spawn(fitted, (size, port, tmp_path, balanced), nprocs=size)
    alone, together = (torch.load(tmp_path / f"{size}.pt", weights_only=False) for size in (1, 3))
    np.testing.assert_allclose(together["losses"], alone["losses"], rtol=1e-5)
    for ours, theirs in zip(together["weights"], alone["weights"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_two_processes_train_one_model_and_go_on_after_one_was_killed(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from thano_assets.learning.predict import Predictor

    texts, labels = reviews(60)
    monkeypatch.setenv("THANO_PROCESSES", "2")
    seen: list[int] = []

    def kill_once(figures: dict[str, float], step: int) -> None:
        seen.append(step)
        if "eval_loss" in figures and figures["epoch"] == 2:  # a state was kept at the end of epoch 1
            workers = [
                process
                for process in psutil.Process().children(recursive=True)
                if "thano_assets.learning.worker" in process.cmdline()
                and process.environ().get("RANK") == "1"
            ]
            workers[0].send_signal(signal.SIGKILL)

    kept = {"checkpoint_dir": tmp_path / "kept", "epochs": 3}
    with pytest.raises(TrainingStopped, match="ended before its time"):
        run(place, tiny_electra, texts, labels, recorded, on_metrics=kill_once, **kept)
    assert not (place.root / "out").exists()
    points: list[tuple[int, dict[str, float]]] = []
    result = run(
        place,
        tiny_electra,
        texts,
        labels,
        recorded,
        on_metrics=lambda figures, step: points.append((step, figures)),
        **kept,
    )
    assert any(said.startswith("Going on from step") for said in recorded.messages)
    assert points[0][0] > 14  # the first epoch was not done again
    assert result.device.startswith("2 processes, cpu")
    assert points[-1][0] == result.history[-1]["step"] == 3 * 14
    assert result.held_out.shape == (7, 2)
    answers = Predictor.load(result.model_dir).predict(texts)
    assert (answers.argmax(axis=1) == [result.classes.index(label) for label in labels]).mean() >= 0.9


def test_two_processes_pretrain_one_base_as_one_does(
    place: Place, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from . import test_pretrain

    tiny = make_tiny(tmp_path / "tiny-electra", mask=True)
    # Batches of 3: one window for the second process, and the last batch of one has none for it.
    given = {"epochs": 1, "batch_size": 3}
    texts = test_pretrain.SENTENCES[:71]
    alone = test_pretrain.run(place, tiny, texts, recorded, "alone", **given)
    monkeypatch.setenv("THANO_PROCESSES", "2")
    together = test_pretrain.run(place, tiny, texts, recorded, "together", **given)
    assert together.device.startswith("2 processes, cpu")
    assert (together.tokens, together.rows_eval) == (alone.tokens, alone.rows_eval)
    for one, other in zip(together.history, alone.history, strict=True):
        assert one["discriminator_loss"] == pytest.approx(other["discriminator_loss"], rel=0.03)
        assert one["generator_loss"] == pytest.approx(other["generator_loss"], rel=0.03)
    assert set(together.metrics) == set(alone.metrics)
    assert together.metrics["generator_loss"] == pytest.approx(alone.metrics["generator_loss"], rel=0.03)
    assert (together.model_dir / "model.safetensors").is_file()


def test_processes_end_with_the_one_that_launched_them(
    place: Place, tiny_electra: Path, tmp_path: Path
) -> None:
    base_of(tiny_electra, place)
    script = tmp_path / "train.py"
    script.write_text(
        f"""
from pathlib import Path
from tests.learning.conftest import Place, Recorded, reviews
from tests.learning.test_train import run
texts, labels = reviews(400)
run(Place(Path({str(place.root)!r})), Path({str(tiny_electra)!r}), texts, labels, Recorded(), epochs=500,
    on_metrics=lambda figures, step: print("step", step, flush=True))
""",
        encoding="utf-8",
    )
    launching = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ
        | {"THANO_PROCESSES": "2", "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    assert launching.stdout is not None
    assert launching.stdout.readline().startswith(b"step")
    below = psutil.Process(launching.pid).children(recursive=True)
    assert len(below) >= 3  # the launcher and two that train
    launching.kill()
    launching.wait()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive
    assert not list(tmp_path.glob("thano-training-*"))  # the texts that were handed over


@pytest.mark.parametrize("written", ["two", "0", "-1", "1.5"])
def test_a_wrong_number_of_processes_is_an_error_before_anything(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    texts, labels = reviews(20)
    monkeypatch.setenv("THANO_PROCESSES", written)
    with pytest.raises(InvalidOption, match="THANO_PROCESSES="):
        run(place, tiny_electra, texts, labels, recorded)
    assert not recorded.messages
