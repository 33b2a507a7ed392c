"""The kinds of models that are tried, and the settings of each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import optuna

#: Short name -> what it is, in words. The names are those of FLAML, whose ranges these are close to.
LEARNERS = {
    "lgbm": "gradient-boosted trees (LightGBM)",
    "rf": "random forest",
    "extra_tree": "extremely randomised trees",
    "linear": "linear model",
}

#: What is tried first: settings that do well on most tables (a portfolio, after Feurer et al. 2022).
PORTFOLIO: tuple[dict[str, Any], ...] = (
    {
        "learner": "lgbm",
        "lgbm.n_estimators": 100,
        "lgbm.num_leaves": 31,
        "lgbm.min_child_samples": 20,
        "lgbm.learning_rate": 0.1,
        "lgbm.colsample_bytree": 1.0,
        "lgbm.reg_alpha": 1e-3,
        "lgbm.reg_lambda": 1.0,
    },
    {"learner": "linear", "linear.strength": 1.0},
    {"learner": "extra_tree", "extra_tree.n_estimators": 128, "extra_tree.min_samples_leaf": 1},
    {"learner": "rf", "rf.n_estimators": 128, "rf.min_samples_leaf": 1},
    {
        "learner": "lgbm",
        "lgbm.n_estimators": 200,
        "lgbm.num_leaves": 8,
        "lgbm.min_child_samples": 8,
        "lgbm.learning_rate": 0.05,
        "lgbm.colsample_bytree": 0.7,
    },
)


def suggest(trial: optuna.Trial) -> tuple[str, dict[str, Any]]:
    """A kind of model and its settings."""
    learner = trial.suggest_categorical("learner", list(LEARNERS))
    if learner == "lgbm":
        params = {
            "n_estimators": trial.suggest_int("lgbm.n_estimators", 16, 512, log=True),
            "num_leaves": trial.suggest_int("lgbm.num_leaves", 4, 128, log=True),
            "min_child_samples": trial.suggest_int("lgbm.min_child_samples", 2, 128, log=True),
            "learning_rate": trial.suggest_float("lgbm.learning_rate", 0.01, 0.5, log=True),
            "colsample_bytree": trial.suggest_float("lgbm.colsample_bytree", 0.3, 1.0),
            "reg_alpha": trial.suggest_float("lgbm.reg_alpha", 1e-3, 10.0, log=True),
            "reg_lambda": trial.suggest_float("lgbm.reg_lambda", 1e-3, 10.0, log=True),
        }
    elif learner == "linear":
        params = {"strength": trial.suggest_float("linear.strength", 1e-3, 1e3, log=True)}
    else:
        params = {
            "n_estimators": trial.suggest_int(f"{learner}.n_estimators", 32, 256, log=True),
            "max_features": trial.suggest_float(f"{learner}.max_features", 0.1, 1.0),
            "min_samples_leaf": trial.suggest_int(f"{learner}.min_samples_leaf", 1, 32, log=True),
        }
    return str(learner), params


def estimator(
    learner: str, params: dict[str, Any], *, classes: int, seed: int, class_weight: str | None
) -> Any:
    """An estimator to be fitted: of classes, or with 0 classes of numbers.

    ``strength`` of the linear model is that of the penalty on its weights: ridge's alpha, and 1/C of logistic
    regression.
    """
    given: dict[str, Any] = {"class_weight": class_weight} if classes else {}
    threads = _threads()
    if learner == "lgbm":
        from lightgbm import LGBMClassifier, LGBMRegressor

        # Deterministic and row-wise: the sums do not depend on the number of threads.
        fixed: dict[str, Any] = {
            "deterministic": True,
            "force_row_wise": True,
            "verbose": -1,
            "random_state": seed,
        }
        boosted = LGBMClassifier if classes else LGBMRegressor
        return boosted(**params, **given, **fixed, n_jobs=threads)
    if learner == "linear":
        from sklearn.linear_model import LogisticRegression, Ridge

        if classes:
            return LogisticRegression(C=1 / params["strength"], max_iter=1000, random_state=seed, **given)
        return Ridge(alpha=params["strength"], random_state=seed)
    from sklearn import ensemble

    family = {"rf": "RandomForest", "extra_tree": "ExtraTrees"}[learner]
    forest = getattr(ensemble, family + ("Classifier" if classes else "Regressor"))
    return forest(**params, **given, random_state=seed, n_jobs=threads)


def state(fitted: Any) -> list[bytes]:
    """What decides an estimator's answers, as bytes: the same for two that were fitted alike."""
    import numpy as np

    if hasattr(fitted, "booster_"):
        return [fitted.booster_.model_to_string().partition("\nparameters:")[0].encode()]
    if hasattr(fitted, "estimators_"):
        return [part for tree in np.ravel(fitted.estimators_) for part in _tree(tree.tree_)]
    return [np.ascontiguousarray(fitted.coef_).tobytes(), np.ascontiguousarray(fitted.intercept_).tobytes()]


def _tree(tree: Any) -> list[bytes]:
    parts: list[np.ndarray] = [
        tree.children_left,
        tree.children_right,
        tree.feature,
        tree.threshold,
        tree.value,
    ]
    return [part.tobytes() for part in parts]


def _threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return (
        int(given)
        if given.isdigit() and int(given)
        else len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )
