"""Tiny, randomly initialised models with real tokenizers, made on the spot: they test the wiring."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from thano_assets.progress import Progress

WORDS = [
    "a",
    "the",
    "film",
    "was",
    "is",
    "it",
    "very",
    "not",
    "good",
    "great",
    "fine",
    "lovely",
    "bad",
    "awful",
    "poor",
    "dull",
    "plot",
    "cast",
    "music",
    "scene",
    "and",
    "or",
    "but",
    "so",
    "then",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
]


@dataclass
class Place:
    """As much of a workspace as base models need."""

    root: Path

    @property
    def models_cache(self) -> Path:
        return self.root / "models-cache"

    @property
    def readable_folders(self) -> tuple[Path, ...]:
        return (self.root / "data",)


class Recorded(Progress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.warnings: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def make_tiny(
    folder: Path, kind: str = "electra", positions: int = 40, seed: int = 3, mask: bool = False
) -> Path:
    """Write a Hugging Face folder: a two-layer encoder, 32 wide, and a word tokenizer, with [MASK] or without."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(["[MASK]"] if mask else [])]
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(specials + WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]" if mask else None,
        model_max_length=positions,
    )
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(specials + WORDS),
        embedding_size=32,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        pad_token_id=0,
        initializer_range=0.2,  # wide enough for random features to tell words apart
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModel.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_electra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "electra")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "bert", kind="bert")


def reviews(count: int, classes: int = 2) -> tuple[list[str], list[str]]:
    """Texts whose first words give away their label, the labels ``c0``, ``c1``, … in turn."""
    telling = [("good", "great"), ("bad", "awful"), ("dull", "poor"), ("lovely", "fine")]
    texts, labels = [], []
    for row in range(count):
        kind = row % classes
        filler = [WORDS[(row * 7 + place) % len(WORDS)] for place in range(row % 9)]
        texts.append(" ".join([telling[kind][row // classes % 2], "film", *filler]))
        labels.append(f"c{kind}")
    return texts, labels
