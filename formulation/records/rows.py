"""Rows of a study on disk, one JSON object a line: appended as they are measured, so that a stop loses none of them.

`Resume` is how every study goes on where it was stopped: it hands out the rows that are there, and appends the others as they are
run. What a study measures, and whether a stored row still holds, is the study's own.
"""

from __future__ import annotations

import json
import os
import sys
import weakref
from collections.abc import Callable, Collection, Hashable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from formulation.records.files import held_by_command, locked, replace_file

if TYPE_CHECKING:
    from tqdm import tqdm

Row = dict[str, Any]
K = TypeVar("K", bound=Hashable)

_NOWHERE = "mend or move the file, or choose another --output"


class RowFile:
    """The rows in `path`; those that exist are read at once, a last line cut short by a kill left out.

    Rows that `pack` compressed into `path`.xz come first; a file may have both, as what is appended stays plain until it is packed.
    Reading changes nothing on disk. With the first change the folder is locked until the present command ends, or outside of
    commands for as long as this object lives, and a line cut short is removed; `append` and `keep` raise ValueError if another
    process writes to the folder.
    Raises ValueError if any other line isn't a JSON object, with the line's number: the file is left as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: int | None = None
        packed, plain = _contents(path)
        packed_rows = _rows_of(packed, packed_path(path), whole=True)
        self._packed = len(packed_rows)
        self.rows: list[Row] = [*packed_rows, *_rows_of(plain, path)]

    def keep(self, wanted: Callable[[Row], bool]) -> None:
        """Drop the rows that are not `wanted`, on disk too."""
        packed = [row for row in self.rows[: self._packed] if wanted(row)]
        plain = [row for row in self.rows[self._packed :] if wanted(row)]
        if len(packed) + len(plain) == len(self.rows):
            return
        self._lock()
        if len(packed) < self._packed:
            _write(packed_path(self.path), _compressed(_lines(packed)))
        _write(self.path, _lines(plain))
        self.rows, self._packed = packed + plain, len(packed)

    def append(self, row: Row) -> None:
        """Add a row and make sure it is on disk."""
        self._lock()
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def begin(self, head: Row) -> None:
        """Make `head`, which says under which conditions rows are measured, the first row of a new file.

        Raises:
            ValueError: if the file begins with another one: its rows would not compare with ours.
        """
        if not self.rows:
            self.append(head)
        elif self.rows[0] != json.loads(json.dumps(head)):
            raise ValueError(
                f"the rows in {self.path} are of {self.rows[0].get('conditions')}, this run is of {head.get('conditions')}; "
                "choose another --output, or delete that file to start over"
            )

    def _lock(self) -> None:
        """Make sure that this process is the one that writes, and that the file ends with a whole line."""
        if self._writer == os.getpid():
            return
        with ExitStack() as stack:
            stack.enter_context(locked(self.path.parent))
            _mend(self.path)
            if (held := held_by_command.get()) is not None:
                held.push(stack.pop_all())
            else:
                weakref.finalize(self, stack.pop_all().close)
        self._writer = os.getpid()


class StudyStopped(KeyboardInterrupt):
    """The user stopped a study whose finished rows are kept; the message says where, and how to go on."""


class Resume(Generic[K]):
    """The cells of a study by their keys: rows that its file holds are handed out, the others are run, and appended one by one.

    A key says what a cell is by content: a `cell_key`, or a part of a row as it is written; never a `repr`. Of several rows with
    one key the last counts. As a context it says on stderr how many of the cells are there, shows progress with the time that is
    left, and turns Ctrl-C into `StudyStopped`.

    Args:
        file: where the rows are, and go.
        wanted: the keys of all cells, None for each that has no identity and is run every time. Left out where they are not known
            beforehand.
        key_of: the key of a row in the file, None for a row that stands for no cell; the row's own "key" unless given.
        columns: what a row must have to stand for a finished cell.
        unit: what a cell is called, in the singular.
        again: whether rows that are there are left out of account, so that all cells are run.
    """

    def __init__(
        self,
        file: RowFile,
        wanted: Iterable[K | None] | None = None,
        *,
        key_of: Callable[[Row], K | None] | None = None,
        columns: Collection[str] = (),
        unit: str = "run",
        again: bool = False,
    ) -> None:
        self._file, self._unit = file, unit
        self._rows: dict[K, Row] = {}
        for row in [] if again else file.rows:
            key = _own_key(row) if key_of is None else key_of(row)
            if key is not None and set(row) >= set(columns):
                self._rows[key] = row
        self._unchecked = set(self._rows)
        keys = None if wanted is None else list(wanted)
        self._total = None if keys is None else keys.count(None) + len({key for key in keys if key is not None})
        self._known = len(self._rows if keys is None else self._rows.keys() & set(keys))
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Resume[K]:
        from tqdm import tqdm

        if self._known:
            of_all = "" if self._total is None else f"of {self._total:,} "
            many = f"{self._unit}{'es' if self._unit.endswith(('ch', 'x')) else 's'}"
            units = self._unit if (self._known if self._total is None else self._total) == 1 else many
            print(f"{self._file.path.name} holds {self._known:,} {of_all}{units}", file=sys.stderr)
        self._bar = tqdm(total=self._total, initial=self._known, unit=self._unit, file=sys.stderr, dynamic_ncols=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if isinstance(error, KeyboardInterrupt) and not isinstance(error, StudyStopped):
            raise StudyStopped(
                f"interrupted; what is finished is kept in {self._file.path}, and the same command goes on from there"
            )

    def __contains__(self, key: K | None) -> bool:
        return key in self._rows

    def __getitem__(self, key: K) -> Row:
        return self._rows[key]

    @property
    def rows(self) -> list[Row]:
        """The row of every cell that is there, in the order in which their first ones were written."""
        return list(self._rows.values())

    def stored(self, key: K | None, check: Callable[[Row], None] | None = None) -> Row | None:
        """The row of a cell where it is there; `check` raises where one that an earlier run wrote does not hold any more."""
        if key is None or key not in self._rows:
            return None
        if check is not None and key in self._unchecked:
            check(self._rows[key])
        self._unchecked.discard(key)
        return self._rows[key]

    def row(self, key: K | None, run: Callable[[], Row], check: Callable[[Row], None] | None = None) -> Row:
        """The `stored` row of a cell, or else what `run` returns, appended."""
        row = self.stored(key, check)
        return self.add(key, run()) if row is None else row

    def add(self, key: K | None, row: Row) -> Row:
        """Append the row of a cell that was run elsewhere; returns it."""
        self._file.append(row)
        if key is not None:
            self._rows[key] = row
            self._unchecked.discard(key)
        if self._bar is not None:
            self._bar.update()
        return row

    def skip(self, keys: Iterable[K | None]) -> None:
        """Leave cells out that will not be run after all."""
        if self._bar is not None and self._bar.total is not None:
            self._bar.total -= sum(key not in self for key in keys)

    def note(self, text: str) -> None:
        """Show beside the progress what is going on."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)


def _own_key(row: Row) -> Any:
    return key if isinstance(key := row.get("key"), str) else None


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows that are known all at once, in place of those that `path` held."""
    packed_path(path).unlink(missing_ok=True)  # first, as the two together would hold both
    _write(path, _lines(rows))


def packed_path(path: Path) -> Path:
    """Where the rows of `path` lie once they are packed."""
    return path.with_name(f"{path.name}.xz")


def pack(path: Path) -> None:
    """Compress the rows of `path` into `packed_path`, behind those that are there already, and remove `path`.

    A stop in between leaves both, and no row counts twice. ValueError if a line is damaged or another process writes there.
    """
    RowFile(path)
    with locked(path.parent):
        _mend(path)
        if path.exists():
            _write(packed_path(path), _compressed(b"".join(_contents(path))))
            path.unlink()


def _contents(path: Path) -> tuple[bytes, bytes]:
    """The lines that are packed, and those that were appended since; a stop of `pack` leaves the same in both files."""
    packed = _decompressed(packed_path(path)) if packed_path(path).exists() else b""
    plain = path.read_bytes() if path.exists() else b""
    return packed, b"" if packed.endswith(plain) else plain


def _decompressed(path: Path) -> bytes:
    import lzma

    try:
        return lzma.decompress(path.read_bytes())
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); {_NOWHERE}") from None


def _compressed(content: bytes) -> bytes:
    import lzma

    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def _rows_of(content: bytes, path: Path, whole: bool = False) -> list[Row]:
    """The rows that lines hold; unless it is `whole`, the last line may be cut short."""
    rows = []
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif line and (whole or number < len(lines)):
            raise ValueError(f"line {number} of {path} is damaged; {_NOWHERE}")
    return rows


def _row(line: bytes) -> Row | None:
    """The JSON object that a line is, if it is one."""
    try:
        row = json.loads(line.decode(errors="replace"))
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def _lines(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()


def _write(path: Path, content: bytes) -> None:
    with replace_file(path) as file:
        file.write(content)


def _mend(path: Path) -> None:
    """End the last line, or remove it where it was cut short; remove the file where all of it is packed."""
    if not path.exists():
        return
    packed, plain = _contents(path)
    if packed and not plain:
        path.unlink()
        return
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            if _row(content[whole:]) is None:
                file.truncate(whole)
            else:
                file.write(b"\n")
