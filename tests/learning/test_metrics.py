from __future__ import annotations

import io
import math

import numpy as np
import pytest

from thano_assets.errors import InvalidOption, TrainingDataError
from thano_assets.learning.baseline import linear_baseline, majority_accuracy
from thano_assets.learning.metrics import confusion, evaluate, scores

TRUE = ["no", "no", "no", "yes", "yes", "yes", "yes", "no"]
YES = np.array([0.1, 0.6, 0.2, 0.9, 0.8, 0.3, 0.7, 0.4])
PROBA = np.stack([1 - YES, YES], axis=1)


def test_binary_summary_by_hand() -> None:
    table = evaluate(TRUE, PROBA, ["no", "yes"])
    found = dict(zip(table["metric"].to_pylist(), table["score"].to_pylist(), strict=True))
    assert list(found) == [
        "Accuracy",
        "ROCAUC",
        "Recall",
        "Precision",
        "F1-Score",
        "Kappa",
        "MCC",
        "log loss",
        "expected calibration error",
    ]
    # true positives 3, false positives 1, false negatives 1, true negatives 3
    assert found["Accuracy"] == pytest.approx(6 / 8)
    assert found["Recall"] == found["Precision"] == found["F1-Score"] == pytest.approx(3 / 4)
    assert found["Kappa"] == found["MCC"] == pytest.approx(0.5)
    # of the 16 pairs of a "yes" and a "no", 14 are ranked right: 0.3 lies below 0.4 and 0.6
    assert found["ROCAUC"] == pytest.approx(14 / 16)


def test_missing_texts_are_left_out() -> None:
    proba = np.concatenate([PROBA, np.full((1, 2), np.nan)])
    assert evaluate([*TRUE, "yes"], proba, ["no", "yes"]).equals(evaluate(TRUE, PROBA, ["no", "yes"]))
    with pytest.raises(TrainingDataError, match="no row to evaluate"):
        evaluate(["yes"], np.full((1, 2), np.nan), ["no", "yes"])


def test_one_label_only_has_no_roc_area() -> None:
    table = evaluate(["yes"] * 2, PROBA[:2], ["no", "yes"])
    assert table["score"].to_pylist()[1] is None


def test_several_classes() -> None:
    proba = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    table = evaluate(["a", "b", "c", "c"], proba, ["a", "b", "c"])
    found = dict(zip(table["metric"].to_pylist(), table["score"].to_pylist(), strict=True))
    assert list(found) == [
        "Accuracy",
        "macro-Recall",
        "macro-Precision",
        "macro-F1-Score",
        "log loss",
        "expected calibration error",
    ]
    assert found["Accuracy"] == pytest.approx(0.75)
    assert found["macro-Recall"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["macro-Precision"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert found["log loss"] == pytest.approx(-sum(map(math.log, (0.7, 0.8, 0.1, 0.6))) / 4)


def test_classes_confusion_and_roc_reports() -> None:
    classes = evaluate(TRUE, PROBA, ["no", "yes"], "classes").to_pylist()
    assert classes[1] == {"label": "yes", "precision": 0.75, "recall": 0.75, "f1": 0.75, "support": 4}
    cells = evaluate(TRUE, PROBA, ["no", "yes"], "confusion").to_pylist()
    assert cells[1] == {"label": "no", "predicted": "yes", "rows": 1}
    assert sum(cell["rows"] for cell in cells) == 8
    roc = evaluate(TRUE, PROBA, ["no", "yes"], "roc").to_pydict()
    assert set(roc["label"]) == {"yes"}
    assert (roc["false_positive_rate"][0], roc["true_positive_rate"][0]) == (0, 0)
    assert (roc["false_positive_rate"][-1], roc["true_positive_rate"][-1]) == (1, 1)
    assert max(roc["threshold"]) <= 1


def test_scores_and_confusion() -> None:
    truth = np.array([0, 1, 1])
    proba = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    found = scores(truth, proba)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.8)) / 3)
    assert confusion(truth, proba) == [[1, 0], [1, 1]]


def test_unknown_labels_and_reports_are_refused() -> None:
    with pytest.raises(TrainingDataError, match=r"'maybe'.*Its labels are 'no', 'yes'"):
        evaluate(["maybe"], PROBA[:1], ["no", "yes"])
    with pytest.raises(InvalidOption, match="report='full'"):
        evaluate(["yes"], PROBA[:1], ["no", "yes"], "full")


def test_baselines() -> None:
    texts = ["good film", "great film", "bad film", "awful film"] * 5
    truth = np.array([1, 1, 0, 0] * 5)
    assert linear_baseline(texts, truth, ["good", "awful"], np.array([1, 0])) == 1.0
    assert linear_baseline(["!", "?"], np.array([0, 1]), ["."], np.array([0])) is None
    assert majority_accuracy(np.array([0, 1, 1]), np.array([1, 0, 1, 1])) == 0.75


def test_figures_are_pictures_of_the_data() -> None:
    from matplotlib.image import imread

    from thano_assets.learning.figures import confusion_matrix, training_curve

    history = [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.4}]
    judged = [*history, {"step": 2, "eval_loss": 0.5, "eval_accuracy": 0.8}]
    pictures = [training_curve([]), training_curve(history), training_curve(judged)]
    pictures += [
        confusion_matrix([[3, 1], [0, 4]], ["no", "yes"]),
        confusion_matrix([[4, 0], [0, 4]], ["a", "b"]),
    ]
    assert len(set(pictures)) == 5
    for picture in pictures:
        height, width = imread(io.BytesIO(picture)).shape[:2]
        assert min(height, width) > 200
