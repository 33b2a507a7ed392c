"""A search for settings: what is tried, on which rows, what is kept when it stops."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thano_assets.errors import TrainingDataError
from thano_assets.learning.settings import TrainingSettings, TuningSettings

from .conftest import Place, Recorded, reviews
from .test_train import base_of

ALL = ("learning_rate", "epochs", "max_length")


class Runs:
    """Remembers the trials that it is asked to record."""

    def __init__(self) -> None:
        self.started: list[tuple[int, dict[str, Any]]] = []
        self.open: set[int] = set()
        self.ended: list[Any] = []
        self.adopted: list[Any] = []
        self.points: dict[int, list[dict[str, float]]] = {}
        self.on_metrics: Callable[[int, Mapping[str, float]], None] = lambda number, point: None

    @contextmanager
    def start(self, number: int, params: Mapping[str, Any]) -> Iterator[Any]:
        self.started.append((number, dict(params)))
        self.open.add(number)
        outer = self

        class Run:
            run_id = f"run-{number}"

            def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
                outer.points.setdefault(number, []).append(dict(metrics))
                outer.on_metrics(number, metrics)

            def end(self, trial: Any) -> None:
                outer.ended.append(trial)

        try:
            yield Run()
        finally:
            self.open.discard(number)

    def adopt(self, trial: Any) -> None:
        self.adopted.append(trial)


class FeaturesInMemory:
    """A cache of features, and how many texts were added for each reading."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], np.ndarray] = {}
        self.computed: Counter[str] = Counter()

    def recall(self, reading: str, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        found = [row for row, text in enumerate(texts) if (reading, text) in self.known]
        return np.array(found, np.intp), np.array([self.known[reading, texts[row]] for row in found])

    def keep(self, reading: str, texts: Sequence[str], features: np.ndarray) -> None:
        self.known |= {(reading, text): one for text, one in zip(texts, features, strict=True)}
        self.computed[reading] += len(texts)


def look(
    place: Place,
    folder: Path,
    recorded: Recorded,
    runs: Runs,
    *,
    rows: tuple[list[str], list[str]] | None = None,
    trials: int = 3,
    searched: tuple[str, ...] = ALL,
    kept: Path | None = None,
    features: FeaturesInMemory | None = None,
    **settings: Any,
) -> Any:
    from thano_assets.learning.tune import search

    texts, labels = rows or reviews(60)
    return search(
        texts,
        labels,
        sorted(set(labels)),
        base_of(folder, place),
        TrainingSettings(**{"batch_size": 8, "epochs": 3} | settings),
        TuningSettings(trials, searched),
        folder=kept,
        identity="one",
        progress=recorded,
        runs=runs,
        features=features,
    )


def long_reviews(count: int) -> tuple[list[str], list[str]]:
    texts, labels = reviews(count)
    return [text + " plot" * (30 if row % 4 == 0 else 1) for row, text in enumerate(texts)], labels


def test_the_first_trial_is_the_recipe_and_the_best_wins(
    place: Place, tiny_electra: Path, recorded: Recorded
) -> None:
    runs = Runs()
    found = look(place, tiny_electra, recorded, runs, rows=long_reviews(60), trials=5)
    assert found.trials[0].params == {"learning_rate": 5e-5, "epochs": 3, "max_length": 40}
    assert [trial.number for trial in found.trials] == [1, 2, 3, 4, 5]
    assert runs.ended == found.trials
    assert not runs.open
    complete = [trial for trial in found.trials if trial.state == "complete"]
    assert found.best.objective == max(trial.objective for trial in complete)
    assert found.best.metrics["accuracy"] == max(trial.metrics["accuracy"] for trial in complete)
    assert found.settings.learning_rate == found.best.params["learning_rate"]
    assert found.settings.epochs == found.best.params["epochs"]
    assert found.settings.max_length == found.best.params["max_length"]
    assert found.settings.eval_fraction == 0.1, "the final training holds out what it would have"
    assert all(1.2e-5 < trial.params["learning_rate"] < 2.1e-4 for trial in found.trials)
    assert all(1 <= trial.params["epochs"] <= 10 for trial in found.trials)
    assert {trial.params["max_length"] for trial in found.trials} <= {32, 40}
    assert len({repr(trial.params) for trial in found.trials}) == 5
    lines = [line for line in recorded.messages if line.startswith("Trial ")]
    assert lines[0].startswith("Trial 1 of 5: learning rate 5e-5, 3 epochs, 40 tokens: accuracy 0.")
    assert len(lines) == 6
    assert found.table().column("best").to_pylist().count(True) == 1


def test_the_final_held_out_rows_are_never_seen(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thano_assets.learning import tune
    from thano_assets.learning.holdout import hold_out

    texts, labels = reviews(80)
    texts = [f"{text} {row}" for row, text in enumerate(texts)]
    truth = np.array([int(label[1]) for label in labels])
    training, held_out = hold_out(truth, 0.25, 7)
    seen: list[tuple[list[str], float]] = []
    train = tune.train

    def spy(rows: list[str], *args: Any, **kwargs: Any) -> Any:
        seen.append((rows, args[3].eval_fraction))
        return train(rows, *args, **kwargs)

    monkeypatch.setattr(tune, "train", spy)
    found = look(
        place,
        tiny_electra,
        recorded,
        Runs(),
        rows=(texts, labels),
        trials=2,
        eval_fraction=0.25,
        seed=7,
        epochs=1,
        searched=("learning_rate",),
    )
    assert len(seen) == 2
    for rows, share in seen:
        assert rows == [texts[row] for row in training]
        assert not set(rows) & {texts[row] for row in held_out}
        assert round(share * 60) == found.rows_judged == 20
    assert (found.rows_train, len(held_out)) == (40, 20)


@pytest.mark.parametrize(
    ("given", "searched"),
    [
        ({"learning_rate": 1e-3}, ("epochs", "max_length")),
        ({"epochs": 2}, ("learning_rate", "max_length")),
        ({"max_length": 16}, ("learning_rate", "epochs")),
    ],
)
def test_what_is_given_is_not_searched(
    given: dict[str, Any],
    searched: tuple[str, ...],
    place: Place,
    tiny_electra: Path,
    recorded: Recorded,
) -> None:
    found = look(
        place, tiny_electra, recorded, Runs(), rows=long_reviews(60), trials=3, searched=searched, **given
    )
    ((name, value),) = given.items()
    assert {trial.params[name] for trial in found.trials} == {value}
    assert getattr(found.settings, name) == value
    assert set(found.chosen) <= set(searched)


def test_few_settings_are_tried_once_each(place: Place, tiny_electra: Path, recorded: Recorded) -> None:
    found = look(
        place, tiny_electra, recorded, Runs(), rows=long_reviews(60), trials=50,
        searched=("max_length",), learning_rate=1e-3, epochs=1,
    )  # fmt: skip
    assert sorted(trial.params["max_length"] for trial in found.trials) == [32, 40]
    # With short texts every length reads the same: nothing is left.
    runs = Runs()
    none = look(place, tiny_electra, recorded, runs, trials=50, searched=("max_length",), learning_rate=1e-3)
    assert (none.trials, none.best, none.settings.learning_rate, runs.started) == ([], None, 1e-3, [])


def test_the_same_search_tries_the_same(place: Place, tiny_electra: Path, recorded: Recorded) -> None:
    def trials(**options: Any) -> list[tuple[Any, ...]]:
        found = look(
            place, tiny_electra, recorded, Runs(), trials=6, epochs=1,
            searched=("learning_rate", "max_length"), rows=long_reviews(40), **options,
        )  # fmt: skip
        return [(trial.params, trial.state, trial.objective, trial.course) for trial in found.trials]

    first = trials()
    assert trials() == first
    assert trials(seed=7) != first


def test_a_stopped_search_goes_on_and_ends_the_same(
    place: Place, tiny_electra: Path, recorded: Recorded
) -> None:
    def settled(found: Any) -> list[tuple[Any, ...]]:
        return [(trial.params, trial.state, trial.objective, trial.course) for trial in found.trials]

    through = look(place, tiny_electra, recorded, Runs(), trials=6, batch_size=16)
    kept = place.root / "kept"
    runs = Runs()
    epochs = through.trials[3].params["epochs"]
    assert epochs > 1, "the trial below stops after its first epoch"

    def stop(number: int, point: Mapping[str, float]) -> None:
        if number == 4 and point["epoch"] > 1:
            raise KeyboardInterrupt

    runs.on_metrics = stop
    with pytest.raises(KeyboardInterrupt):
        look(place, tiny_electra, recorded, runs, trials=6, kept=kept, batch_size=16)
    assert not runs.open
    assert [number for number, _ in runs.started] == [1, 2, 3, 4]
    assert len(json.loads((kept / "trials.json").read_text())["trials"]) == 3

    again = Runs()
    found = look(place, tiny_electra, recorded, again, trials=6, kept=kept, batch_size=16)
    assert [number for number, _ in again.started] == [4, 5, 6]
    assert [trial.run_id for trial in again.adopted] == ["run-1", "run-2", "run-3"]
    assert min(point["epoch"] for point in again.points[4]) > 1, "what was trained is not trained again"
    assert settled(found) == settled(through)
    assert found.settings == through.settings
    assert "Going on after 3 of 6 trials, which had ended before" in recorded.messages

    after = Runs()
    look(place, tiny_electra, recorded, after, trials=6, kept=kept, batch_size=16)
    assert after.started == [], "all had ended"
    other = Runs()
    look(place, tiny_electra, recorded, other, trials=2, kept=kept, batch_size=4, epochs=1)
    assert len(other.started) == 2, "another search"


def test_hopeless_trials_are_stopped_early(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thano_assets.learning import tune
    from thano_assets.learning.search_space import Space

    # Rates as far apart as nobody would search: half of them learn nothing.
    space = Space({"learning_rate": 3e-3, "epochs": 4, "max_length": 40}, (1e-9, 3e-3), None, None)
    monkeypatch.setattr(tune, "space_of", lambda *_: space)
    found = look(place, tiny_electra, recorded, Runs(), trials=12, epochs=4, batch_size=16)
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned
    assert all(trial.objective is None and 1 <= len(trial.course) < 4 for trial in pruned)
    assert found.best.state == "complete"
    assert found.best.params["learning_rate"] > max(trial.params["learning_rate"] for trial in pruned) / 100
    assert any("stopped early" in line for line in recorded.messages)


def test_a_trial_that_fails_ends_nothing(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thano_assets.learning import tune

    train = tune.train
    calls = []

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return train(*args, **kwargs)

    monkeypatch.setattr(tune, "train", sometimes)
    runs = Runs()
    found = look(place, tiny_electra, recorded, runs, trials=3, epochs=1)
    assert [trial.state for trial in found.trials] == ["complete", "failed", "complete"]
    assert found.trials[1].reason == "out of memory"
    assert any(line.endswith("failed, out of memory") for line in recorded.messages)

    def never(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tune, "train", never)
    with pytest.raises(TrainingDataError, match="None of the 3 trials could be trained: out of memory"):
        look(place, tiny_electra, recorded, Runs(), trials=3, epochs=1)


def test_a_training_that_diverges_is_a_failed_trial(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thano_assets.learning import tune

    train = tune.train

    def diverging(*args: Any, **kwargs: Any) -> Any:
        if args[4].learning_rate != 5e-5:
            kwargs["on_metrics"]({"epoch": 0.5, "loss": float("nan")}, 1)
        return train(*args, **kwargs)

    monkeypatch.setattr(tune, "train", diverging)
    found = look(place, tiny_electra, recorded, Runs(), trials=3, epochs=1, searched=("learning_rate",))
    assert [trial.state for trial in found.trials] == ["complete", "failed", "failed"]
    assert found.trials[2].reason == "the loss is no number any more"
    assert found.best is found.trials[0]


def test_a_frozen_encoder_reads_the_rows_once(
    place: Place, tiny_electra: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:

    cache = FeaturesInMemory()
    found = look(
        place,
        tiny_electra,
        recorded,
        Runs(),
        rows=long_reviews(60),
        features=cache,
        trials=5,
        train="head",
        epochs=3,
    )
    lengths = {trial.params["max_length"] for trial in found.trials}
    assert {int(reading.split()[0]) for reading in cache.computed} == lengths
    assert set(cache.computed.values()) == {found.rows_train + found.rows_judged}
    assert found.trials[0].params["learning_rate"] == 1e-3


def test_too_few_rows_are_refused(place: Place, tiny_electra: Path, recorded: Recorded) -> None:
    with pytest.raises(TrainingDataError, match="27 rows to train on are too few to tune with"):
        look(place, tiny_electra, recorded, Runs(), rows=reviews(30))


def test_how_many_rows_judge() -> None:
    from thano_assets.learning.holdout import judging_share

    def rows(count: int) -> int:
        return round(judging_share(count) * count)

    assert [rows(count) for count in (30, 90, 150, 200, 1_000, 10_000, 100_000)] == [
        10, 30, 50, 50, 200, 2_000, 2_000,
    ]  # fmt: skip


def test_the_score_decides_before_the_loss() -> None:
    from thano_assets.learning.tune import objective

    def value(accuracy: float, loss: float) -> float:
        return objective({"accuracy": accuracy, "loss": loss}, "accuracy", 100)

    assert value(0.9, 0.3) > value(0.9, 0.4)
    assert value(0.91, 25.0) > value(0.9, 0.0)


def test_rates_read_as_people_write_them() -> None:
    from thano_assets.learning.search_space import rate

    assert [rate(value) for value in (5e-5, 1.25e-4, 0.001, 0.0123, 1.0)] == [
        "5e-5", "1.25e-4", "1e-3", "1.23e-2", "1e0",
    ]  # fmt: skip
