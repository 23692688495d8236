"""Where files go: written atomically, so that earlier ones survive, by one process a folder; and the cache."""

from __future__ import annotations

import atexit
import json
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

import errno
import os
import secrets
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from platform import node
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not a Unix: nothing is locked
    fcntl = None  # type: ignore[assignment]

_UNFINISHED = ".unfinished"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system says that knows no locks."""


def cache_folder() -> Path:
    """The user's folder for what can be made again: merino in $XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "merino"


def json_text(record: Any, indent: int = 1) -> str:
    """The JSON text of a record, one line for each entry of a list under the key "rows", which may be long."""
    rows: list[str] = []

    def hollow(node: Any) -> Any:
        if isinstance(node, list):
            return [hollow(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {key: marked(item) if key == "rows" and isinstance(item, list) else hollow(item) for key, item in node.items()}

    def marked(items: list[Any]) -> list[str]:
        rows.extend(json.dumps(item, allow_nan=False, ensure_ascii=False) for item in items)
        return [mark] * len(items)

    mark = f"a row, {secrets.token_hex(8)}"
    parts = json.dumps(hollow(record), indent=indent, allow_nan=False, ensure_ascii=False).split(json.dumps(mark))
    return "".join(part + row for part, row in zip(parts, [*rows, "\n"], strict=True))


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that takes the place of `path` once it is complete; on an error `path` stays as it was.

    Its permissions follow the umask. What a killed process left of the same file is removed.
    """
    remove_unfinished(path.parent, path.name)
    handle = None
    while handle is None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
        handle = _locked_file(temporary)
    try:
        # The handle, and with it the lock, is held until the file has its name; Windows renames no file that is open.
        with os.fdopen(handle, "wb", closefd=fcntl is None) as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        if fcntl is not None:
            os.close(handle)


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove what killed processes left in `folder` of the file `name`, or of any file."""
    start = f".{name}." if name else "."
    with os.scandir(folder) as entries:
        left = [entry.path for entry in entries if entry.name.startswith(start) and entry.name.endswith(_UNFINISHED)]
    for path in map(Path, left):
        if fcntl is not None and path.is_file() and (handle := _locked_file(path)) is not None:
            path.unlink(missing_ok=True)
            os.close(handle)


@dataclass
class _Lock:
    """A lock that the process `owner` holds `times` over."""

    handle: int
    owner: int
    times: int = 1


_guard = threading.RLock()  # a lock may be released by the garbage collector, at any point

_locks: dict[Path, _Lock] = {}


held_by_command: ContextVar[ExitStack | None] = ContextVar("held_by_command", default=None)
"""What the present command holds until it ends; None outside of commands."""


@contextmanager
def locked(folder: Path, beside: bool = False) -> Iterator[None]:
    """While it lasts, no other process writes to `folder`; the same process may lock it again. What was left unfinished is removed.

    The lock is on a file .lock in the folder, which holds the process's number. It ends with the process, however that ends, and
    the file is removed at the end, or by the next one to lock the folder.

    Args:
        beside: keep the file beside the folder instead, as the folder itself is to be replaced.

    Raises:
        ValueError: if another process has the lock. On a system that isn't Unix nothing is locked.
    """
    folder = folder.resolve()
    path = folder.with_name(f".{folder.name}.lock") if beside else folder / ".lock"
    with _guard:
        lock = _locks.get(path)
        if lock is None:
            lock = _locks[path] = _Lock(_taken(path, folder), os.getpid())
        else:
            lock.times += 1
    try:
        if not beside and lock.times == 1:
            remove_unfinished(folder)
        yield
    finally:
        with _guard:
            lock.times -= 1
            if not lock.times and lock.owner == os.getpid():  # a fork shares the lock, and leaves it to its parent
                del _locks[path]
                if fcntl is not None:
                    path.unlink(missing_ok=True)
                os.close(lock.handle)


def _taken(path: Path, folder: Path) -> int:
    """The handle of a lock's file, now ours; ValueError if it is another's."""
    if fcntl is None:
        return os.open(os.devnull, os.O_RDONLY)
    handle = _locked_file(path)
    if handle is None:
        raise ValueError(
            f"{folder} is in use by {_holder(path)}, which writes its results there; "
            "wait until it has ended, or choose another output folder"
        )
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {node()}\n".encode())
    return handle


def _holder(path: Path) -> str:
    """Which process has the lock, as far as the file says."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    except OSError:
        return "another process"


def _locked_file(path: Path) -> int | None:
    """The file `path`, made where it is missing, opened and locked; None if another process has it locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        if fcntl is None:
            return handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                if isinstance(error, BlockingIOError | PermissionError):
                    return None
                raise
            warnings.warn(f"{path.parent} is on a file system without locks: run one command at a time in it", stacklevel=2)
        # Whoever had it before may have removed or renamed it meanwhile: then it is no longer the file of that name.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)


_RESOLUTION = 150
"""Dots per inch of a saved figure: sharp in a README at full text width."""


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """The folder `path`, created where it is missing. ValueError, before any work is done, where nothing can be written in it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"cannot write to the output folder {folder} ({str(error.strerror).lower()}); choose another with --output"
        ) from None
    return folder


def writable_file(path: str | os.PathLike[str], flag: str) -> Path:
    """The file `path`, still to be written. ValueError, before any work is done, that names `flag` where that can't be."""
    file = Path(path)
    try:
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise ValueError(
            f"cannot write the file {file} of {flag} ({str(error.strerror).lower()}); name a file in a folder that exists"
        ) from None
    return file


def output_folder(path: str | os.PathLike[str]) -> Path:
    """A `writable_folder` in which no other process writes until the `command` that asked for it ends.

    Raises:
        ValueError: if another process does already.
    """
    return hold_folder(writable_folder(path))


def hold_folder(folder: Path) -> Path:
    """Keep other processes from writing to `folder` until the present `command` ends; see `locked`."""
    (held_by_command.get() or _until_exit).enter_context(locked(folder))
    return folder


_until_exit = ExitStack()
"""What is held outside of commands."""
atexit.register(_until_exit.close)


def write_json(path: Path, record: Any) -> None:
    """Write `record` to `path` as indented JSON (UTF-8), atomically. ValueError for a number that is not finite."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    with replace_file(path) as file:
        # Of a name that is not UTF-8 Python keeps the bytes as lone surrogates, which JSON can hold as \\udcff.
        file.write(text.encode(errors="backslashreplace") + b"\n")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a matplotlib figure to `path` in the format its suffix names, atomically."""
    with replace_file(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), dpi=_RESOLUTION)
