"""``pylock.toml`` meets the ranges of ``pyproject.toml``, and every file in it has its hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKED = tomllib.loads((ROOT / "pylock.toml").read_text(encoding="utf-8"))["packages"]


def test_every_dependency_is_locked_within_its_range() -> None:
    versions = {package["name"]: package["version"] for package in LOCKED}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in project["dependencies"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), text


def test_every_file_has_its_hash_and_no_address() -> None:
    for package in LOCKED:
        assert package.get("wheels"), package["name"]
        for file in package["wheels"]:
            assert re.fullmatch("[0-9a-f]{64}", file["hashes"]["sha256"])
            assert file["path"] == f"wheelhouse/{file['name']}"
            assert "url" not in file
