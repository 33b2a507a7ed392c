"""``/fm``: the files of the data folder, which COPY reads, for the public client."""

from __future__ import annotations

import mimetypes
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, File, Request, Response, UploadFile
from fastapi.responses import FileResponse

from thano_assets.errors import DataFileError, PathRefused, UnknownFile
from thano_assets.interfaces.server.sessions import check_right

if TYPE_CHECKING:
    from thano_assets.interfaces.server.app import Server

router = APIRouter(tags=["file"])


@router.get("/contents/{path:path}", summary="A file, or what a folder has")
def get(request: Request, path: str, option: Literal["download"] | None = None) -> Any:
    """What is at a place of the data folder; with ``download`` the file itself."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A file")
    root, place = server.workspace.data, _place(server, path)
    if not place.exists():
        raise _missing(path)
    if option is None:
        return {"content_info": _described(root, place, inside=True), "root": ""}
    if place.is_dir():
        raise DataFileError(f"'{path}' is a folder; a file can be downloaded.")
    kind = mimetypes.guess_type(place.name)[0] or "application/octet-stream"
    # The client parses what is called JSON, and takes a field "error" of it for one.
    kind = "application/octet-stream" if kind == "application/json" else kind
    return FileResponse(place, media_type=kind, filename=place.name)


@router.post("/contents/{path:path}", summary="Make a folder, or put a file into one")
def create(request: Request, path: str, file: Annotated[UploadFile | None, File()] = None) -> dict[str, Any]:
    """Without a file, make a folder; with one, put it into the folder, which is made."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "write", "A file")
    root, folder = server.workspace.data, _place(server, path)
    if any(one.is_file() for one in (folder, *folder.parents)):
        raise DataFileError(f"'{path}' is a file, and a folder is needed there.")
    folder.mkdir(parents=True, exist_ok=True)
    if file is None:
        return {"content_info": _described(root, folder, inside=True), "root": ""}
    name = Path((file.filename or "").replace("\\", "/")).name
    if name in ("", ".", ".."):
        raise DataFileError("The file has no name.")
    target = _place(server, f"{path}/{name}")
    if target.is_dir():
        raise DataFileError(f"'{name}' is a folder there.")
    beside = folder / f".{uuid.uuid4().hex}.part"
    try:
        with beside.open("wb") as out:
            shutil.copyfileobj(file.file, out)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return {"content_info": _described(root, target, inside=False), "root": ""}


@router.delete("/contents/{path:path}", status_code=204, summary="Delete a file or a folder")
def delete(request: Request, path: str) -> Response:
    """Delete a file, or a folder with all that it has."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "write", "A file")
    place = _place(server, path)
    if place == server.workspace.data.resolve():
        raise PathRefused("The data folder itself stays.")
    if not place.exists():
        raise _missing(path)
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    return Response(status_code=204)


def _place(server: Server, path: str) -> Path:
    """What a path means inside the data folder.

    Raises:
        PathRefused: it leads out of it.
    """
    root = server.workspace.data.resolve()
    try:
        found = (root / path.strip("/")).resolve()
    except (OSError, ValueError) as error:
        raise PathRefused(f"'{path[:80]}' is no path.") from error
    if not found.is_relative_to(root):
        raise PathRefused(f"'{path[:80]}' is outside the data folder.")
    return found


def _missing(path: str) -> UnknownFile:
    return UnknownFile(f"There is nothing at '{path[:80]}' in the data folder.")


def _described(root: Path, place: Path, *, inside: bool) -> dict[str, Any]:
    facts = place.stat()
    folder = place.is_dir()
    shown = (
        sorted(one for one in place.iterdir() if not one.name.startswith(".")) if folder and inside else []
    )
    return {
        "name": place.stem if not folder else place.name,
        "format": None if folder else place.suffix,
        "path": place.relative_to(root.resolve()).as_posix(),
        "type": "directory" if folder else "file",
        "size": None if folder else facts.st_size,
        "writable": True,
        "content": [_described(root, one, inside=False) for one in shown if one.exists()] if folder else None,
        "created_at": datetime.fromtimestamp(facts.st_ctime, UTC).isoformat(),
        "updated_at": datetime.fromtimestamp(facts.st_mtime, UTC).isoformat(),
    }
