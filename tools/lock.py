"""Lock every dependency to one version with its hash, and install from that.

    python tools/lock.py                 # writes pylock.toml from the ranges of pyproject.toml
    python tools/lock.py fetch           # fills wheelhouse/ with just those files, checked by their hashes
    pip install -r pylock.toml && pip install --no-deps .

Further arguments go to pip, as ``--extra-index-url``. Needs pip 26.1 or newer. A lock holds for one version
of Python and one kind of machine, those that it was made on. It names files and not addresses, so that it
serves behind any index and without one.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "pylock.toml"
WHEELS = "wheelhouse"


def locked() -> list[dict[str, Any]]:
    """The packages of the lock file."""
    found: list[dict[str, Any]] = tomllib.loads(LOCK.read_text(encoding="utf-8"))["packages"]
    return found


def files_of(package: dict[str, Any]) -> list[dict[str, Any]]:
    """Wheels of a package, and its source archive where it has no wheel."""
    return [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]


def lock(arguments: list[str]) -> None:
    """Ask pip which versions meet the ranges, and write them without the addresses they were found at."""
    found = tomllib.loads(pip("lock", ".", "--quiet", "--output", "-", *arguments))
    lines = [
        f"# For Python {sys.version_info[0]}.{sys.version_info[1]}, {platform.system()} on "
        f"{platform.machine()}; tools/lock.py makes it and says how it is used.",
        f'lock-version = "{found["lock-version"]}"',
        f'created-by = "{found["created-by"]}"',
    ]
    for package in sorted(found["packages"], key=lambda package: package["name"]):
        if "directory" in package:  # this project itself
            continue
        lines += ["", "[[packages]]", f'name = "{package["name"]}"', f'version = "{package["version"]}"']
        for kind in ("wheels", "sdist"):
            one = package.get(kind)
            for file in one if isinstance(one, list) else [one] if one else []:
                header = f"[[packages.{kind}]]" if kind == "wheels" else f"[packages.{kind}]"
                name = file.get("name") or file["url"].rpartition("/")[2]
                lines += ["", header, f'name = "{name}"', f'path = "{WHEELS}/{name}"']
                lines += [f'hashes = {{sha256 = "{file["hashes"]["sha256"]}"}}']
    LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(locked())} packages in {LOCK.name}")


def fetch(arguments: list[str]) -> None:
    """Download what the lock file names; a file with another hash ends it."""
    folder = ROOT / WHEELS
    wanted = "\n".join(
        f"{package['name']}=={package['version']} "
        + " ".join(f"--hash=sha256:{file['hashes']['sha256']}" for file in files_of(package))
        for package in locked()
    )
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(wanted)
        file.flush()
        pip("download", "--no-deps", "--require-hashes", "-r", file.name, "-d", str(folder), *arguments)
    missing = [
        one["name"]
        for package in locked()
        for one in files_of(package)
        if not (folder / one["name"]).exists()
    ]
    if missing:
        raise SystemExit(f"{folder} lacks {', '.join(missing)}")
    print(f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:,.0f} MB in {folder}")


def pip(*arguments: str) -> str:
    """What pip prints when it runs in the project's folder; ends with its exit code where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def main() -> None:
    """Lock or fetch."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("action", nargs="?", choices=("lock", "fetch"), default="lock")
    chosen, others = options.parse_known_args()
    (lock if chosen.action == "lock" else fetch)(others)


if __name__ == "__main__":
    main()
