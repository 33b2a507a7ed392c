"""Access tokens of the server: who may ask it for what.

A token is 32 random bytes, so its SHA-256 digest is kept as it is: there is nothing to guess that a slow hash
would protect. The text of a token is shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..errors import NameExists, ThanoError, UnknownToken, WorkspaceError, did_you_mean

if TYPE_CHECKING:
    from .workspace import Workspace

#: What a token may be good for: rows and answers; tables; models.
RIGHTS = ("read", "write", "build")
_PREFIX = "thano_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Token:
    """A token that was made.

    Attributes:
        name: whom it was made for.
        rights: some of :data:`RIGHTS`, in their order.
        digest: SHA-256 of its text, in hexadecimal digits.
        created: when, as ISO text in UTC.
    """

    name: str
    rights: tuple[str, ...]
    digest: str
    created: str


class Tokens:
    """The tokens of a workspace, in ``server/tokens.json``; only its owner may read the file."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._path = workspace.server / "tokens.json"
        self._read: tuple[int, list[Token]] | None = None

    def all(self) -> list[Token]:
        """Every token, oldest first.

        Raises:
            WorkspaceError: the file is damaged.
        """
        try:
            changed = self._path.stat().st_mtime_ns
            if self._read is None or self._read[0] != changed:
                kept = json.loads(self._path.read_text(encoding="utf-8"))
                self._read = changed, [Token(**one | {"rights": tuple(one["rights"])}) for one in kept]
            return list(self._read[1])
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise WorkspaceError(
                f"{self._path} does not hold access tokens.", hint="Remove it, and make the tokens again."
            ) from error

    def create(self, name: str, rights: Iterable[str]) -> str:
        """Make a token; its text, which is kept nowhere.

        Raises:
            ThanoError: the name is none, or is taken.
        """
        if not _NAME.fullmatch(name):
            raise ThanoError(
                f"'{name}' is no name of a token.",
                hint="It has 1 to 64 Latin letters, digits, '_', '.' and '-'.",
            )
        wanted = tuple(right for right in RIGHTS if right in set(rights))
        text = _PREFIX + secrets.token_urlsafe(32)
        with self._workspace.lock("tokens"):
            known = self.all()
            if any(token.name == name for token in known):
                raise NameExists(
                    f"There is a token {name} already.", hint=f"`thano token revoke {name}` ends it."
                )
            made = Token(name, wanted, _digest(text), datetime.now(UTC).isoformat(timespec="seconds"))
            self._keep([*known, made])
        return text

    def revoke(self, name: str) -> None:
        """End a token.

        Raises:
            UnknownToken: there is none of this name.
        """
        with self._workspace.lock("tokens"):
            known = self.all()
            left = [token for token in known if token.name != name]
            if len(left) == len(known):
                raise UnknownToken(
                    f"There is no token {name}.",
                    hint=did_you_mean(name, [token.name for token in known], "tokens"),
                )
            self._keep(left)

    def find(self, text: str) -> Token | None:
        """The token with this text; every one is compared, in constant time."""
        digest, found = _digest(text), None
        for token in self.all():
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def _keep(self, tokens: list[Token]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(f"{self._path.name}.part")
        beside.unlink(missing_ok=True)
        content: list[dict[str, Any]] = [asdict(token) for token in tokens]
        with os.fdopen(
            os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as out:
            json.dump(content, out, indent=1)
        beside.replace(self._path)
        self._read = None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
