"""Fixtures that every room's tests share."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from thano_assets.resources.environments import open_workspace
from thano_assets.resources.workspace import Workspace


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own workspace and servers have no say in a test."""
    for name in (
        "THANO_WORKSPACE",
        "THANO_ENV",
        "THANO_MLFLOW_URL",
        "THANO_DAGSTER_URL",
        "MLFLOW_TRACKING_URI",
        "DAGSTER_HOME",
    ):
        monkeypatch.delenv(name, raising=False)


if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers with two threads each would wait for one another on two cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Random inputs: a few hundred of each kind, ten thousand where asked for by --hypothesis-profile long.
_HEALTH = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
for _name, _examples in (("short", 150), ("long", 10_000)):
    hypothesis.settings.register_profile(
        _name, max_examples=_examples, deadline=None, suppress_health_check=_HEALTH, database=None
    )
hypothesis.settings.load_profile("short")

_LARGE = ("dagster", "mlflow", "torch", "transformers")


@pytest.fixture(scope="session")
def _frozen() -> Iterator[list[str]]:
    """Names of the large libraries that garbage collection leaves alone by now."""
    yield (names := [])
    if names:
        gc.unfreeze()


@pytest.fixture(autouse=True)
def _libraries_are_not_looked_through(_frozen: list[str]) -> None:
    """Accelerate collects garbage after each training: with these libraries' objects that takes a second."""
    loaded = [name for name in _LARGE if name in sys.modules]
    if len(loaded) > len(_frozen):
        _frozen[:] = loaded
        gc.collect()
        gc.freeze()
        # With few objects left that it knows of, it would else look through all of them every moment.
        gc.set_threshold(50_000, 20, 100)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A fresh workspace without tables, models and runs."""
    return open_workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with all its migrations done (3 s), to be copied."""
    from thano_assets.resources.registry import Registry

    registry = Registry(open_workspace(tmp_path_factory.mktemp("mlflow") / "workspace"))
    assert registry.client is not None
    return registry.database


@pytest.fixture
def tracked_workspace(workspace: Workspace, mlflow_database: Path) -> Workspace:
    """A fresh workspace whose MLflow database is there already."""
    shutil.copy2(mlflow_database, workspace.mlflow / "mlflow.db")
    return workspace


def small_classifier(
    folder: Path, classes: tuple[str, ...] = ("negative", "positive"), positions: int = 64
) -> Path:
    """Make ``folder`` that of a tiny, untrained ELECTRA classifier over single letters."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import ElectraConfig, ElectraForSequenceClassification, PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *letters, *(f"##{letter}" for letter in letters)]
    plain = Tokenizer(
        models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    plain.normalizer = normalizers.BertNormalizer()
    plain.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    config = ElectraConfig(
        vocab_size=len(words),
        embedding_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=positions,
        num_labels=len(classes),
        id2label=dict(enumerate(classes)),
        label2id={label: number for number, label in enumerate(classes)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same weights in every run of the tests
        ElectraForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_classifier(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes the Hugging Face folder of a tiny, untrained ELECTRA classifier over single letters."""
    return lambda *args, **kwargs: small_classifier(tmp_path_factory.mktemp("classifier"), *args, **kwargs)


@pytest.fixture(scope="session")
def classifier(make_classifier: Callable[..., Path]) -> Path:
    """The Hugging Face folder of a tiny classifier with the classes negative and positive."""
    return make_classifier()
