"""What a statement's run as a Dagster run costs beside the same work done directly, in a warm process.

    python benchmarks/orchestration.py                # 40 pairs of each statement
    python benchmarks/orchestration.py --profile 25   # and where the statements' time goes, by cProfile

The two sides take turns. "statement" is ``Session.execute``: parsing, binding, checks, the plan, Dagster's
run with its events, the asset. "direct" is the asset's body alone, with the same resources.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib.metadata
import os
import platform
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TABLE = "CREATE OR REPLACE TABLE one AS SELECT 1 AS n"
PREDICTION = "CREATE OR REPLACE TABLE answers AS PREDICT USING tiny AS SELECT * FROM texts"


def tiny_classifier(folder: Path) -> Path:
    """Make the Hugging Face folder of an untrained classifier over single letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import ElectraConfig, ElectraForSequenceClassification, PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    plain = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    plain.normalizer = normalizers.BertNormalizer()
    plain.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = ElectraConfig(
        vocab_size=len(words),
        embedding_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    ElectraForSequenceClassification(config).save_pretrained(folder)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=plain, **special).save_pretrained(folder)
    return folder


def register(session: object, folder: Path) -> None:
    """Register a classifier as the model ``tiny``."""
    registry = session._runtime.registry  # type: ignore[attr-defined]
    with registry.build("tiny") as build:
        build.register(
            tiny_classifier(folder),
            labels={"classes": ["negative", "positive"], "type": "VARCHAR"},
            metrics={},
            tags={"thano.data_version": "0" * 32},
        )


def in_turns(pairs: int, sides: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each side, measured in turns after three rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(pairs + 3):
        for name, work in sides.items():
            started = time.perf_counter()
            work()
            if number >= 3:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def line(name: str, seconds: list[float]) -> str:
    """Median and quartiles in milliseconds."""
    low, middle, high = (1000 * value for value in statistics.quantiles(seconds, n=4))
    return f"  {name:<12} {middle:7.1f} ms   quartiles {low:.1f} to {high:.1f}, n = {len(seconds)}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--profile", type=int, default=0, metavar="LINES")
    asked = parser.parse_args()

    from thano_assets.assets.predictions import predictions
    from thano_assets.assets.tables import tables
    from thano_assets.planning.binding import bind
    from thano_assets.session import Session

    libraries = [f"{name} {importlib.metadata.version(name)}" for name in ("dagster", "duckdb", "sqlalchemy")]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}, {', '.join(libraries)}")
    print("load average before: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))
    with (
        tempfile.TemporaryDirectory(prefix="thano-orchestration-") as name,
        Session(Path(name) / "w") as session,
    ):
        register(session, Path(name) / "tiny")
        session.execute("COPY texts FROM '[" + ", ".join(f'{{"text": "text {n}"}}' for n in range(10)) + "]'")
        for text, body in ((TABLE, tables.materialize), (PREDICTION, predictions.materialize)):
            bound = bind(session.parse(text)[0], session.catalog, session._runtime.registry.models())
            node = bound.graph.nodes[bound.targets[-1]]
            sides: dict[str, Callable[[], object]] = {
                "statement": lambda text=text: session.execute(text),
                "direct": lambda node=node, body=body: body(node, session._runtime),
            }
            seconds = in_turns(asked.pairs, sides)
            more = [one - other for one, other in zip(seconds["statement"], seconds["direct"], strict=True)]
            print(text)
            for side, values in {**seconds, "difference": more}.items():
                print(line(side, values))
            if asked.profile:
                profile = cProfile.Profile()
                profile.enable()
                for _ in range(10):
                    session.execute(text)
                profile.disable()
                pstats.Stats(profile).sort_stats("cumulative").print_stats(asked.profile)
    print("load average after: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
