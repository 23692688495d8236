"""What every command does around its work: help, provenance, files written whole or not at all, errors in one sentence.

What a study measures, tabulates and draws is its own file.
"""

from __future__ import annotations

import argparse
import atexit
import codecs
import functools
import importlib.metadata
import inspect
import io
import itertools
import json
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
import textwrap
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from formulation.entropy import DEFAULTS_VERSION
from formulation.exit_code import ExitCode
from formulation.files import held_by_command, locked, replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RESOLUTION = 150
"""Dots per inch of a saved figure: sharp in a README at full text width."""

_SIGNS = {
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "≈": "~",
    "×": "x",
    "·": "*",
    "−": "-",
    "–": "-",
    "±": "+-",
    "→": "->",
    "²": "^2",
    "³": "^3",
    "√": "sqrt",
    "∞": "inf",
    "✓": "yes",
    "✗": "no",
}
"""What stands for a sign where the standard output cannot say it; other letters lose their accents, Greek ones get their names."""

_P = ParamSpec("_P")
_R = TypeVar("_R")

_names: ContextVar[Mapping[str, str]] = ContextVar("_names", default=MappingProxyType({}))
"""Module -> what a reader types to start it, where that is not `python -m MODULE`; see `called`."""


@contextmanager
def called(names: Mapping[str, str]) -> Iterator[None]:
    """Within it, the help of `command_parser` calls modules by these names: {"studies.design": "merino design"}.

    What starts the commands under names of its own, such as `studies.front_door`, wraps their `main` in it.
    """
    token = _names.set(names)
    try:
        yield
    finally:
        _names.reset(token)


def command_parser(spec: ModuleSpec | None, document: str | None, notes: str = "") -> argparse.ArgumentParser:
    """The parser of the command that a module is, whose help is the module's docstring; the module adds its flags.

    The docstring's first paragraph stands above the flags; below them stand the examples, which are an indented block behind the
    first paragraph, the other paragraphs, and `notes`. Lines are filled to the terminal, those that are indented stay as they are.
    In usage and examples the command is named as it was typed: `python -m studies.design`, or as `called` says.

    spec      the module's `__spec__`, which knows its name under `python -m` too; None where it was started as a script
    document  its `__doc__`
    notes     what the docstring cannot say, such as a list made of a table in the code
    """
    description, _, details = inspect.cleandoc(document or "").partition("\n\n")
    if details.startswith(" "):
        details = f"examples:\n{details}"
    return argparse.ArgumentParser(
        prog=None if spec is None else _as_called(f"python -m {spec.name}"),
        description=_filled(_as_called(description)),
        epilog=_filled(_as_called(f"{details}\n\n{notes}".strip())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _as_called(text: str) -> str:
    """`text`, with `python -m MODULE` replaced where the module is called otherwise."""
    names = _names.get()
    return re.sub(r"python -m (\w+(?:\.\w+)*)", lambda found: names.get(found[1], found[0]), text)


def _filled(text: str) -> str:
    """`text` with its paragraphs broken at the terminal's width, less what argparse leaves free; indented lines are kept."""
    width = shutil.get_terminal_size().columns - 2
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    runs = itertools.groupby(text.split("\n"), key=lambda line: line[:1] in ("", " "))
    return "\n".join("\n".join(lines) if kept else wrapper.fill(" ".join(lines)) for kept, lines in runs)


def provenance(seed: int, packages: Iterable[str] = ("numpy", "scipy")) -> dict[str, Any]:
    """Where results come from: command, seed, versions, machine and the entropy's defaults (`DEFAULTS_VERSION`), ready for JSON.

    packages: distributions whose versions matter beside Python's and merino's own; one that is not installed is left out.
    The record names neither the host nor its folders: of an absolute path on the command line only the last part is kept.
    """
    versions = {"python": platform.python_version()}
    for name in dict.fromkeys(("merino", *packages)):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    parts = (platform.system(), platform.machine(), platform.processor(), f"{os.cpu_count()} CPUs")
    return {
        "command": _command(),
        "seed": seed,
        "versions": versions,
        "entropy_defaults": DEFAULTS_VERSION,
        "machine": ", ".join(dict.fromkeys(part for part in parts if part)),
    }


def _command() -> str:
    """The command line as typed: `python -m studies.x flags`, `merino x flags`, or `python script.py flags`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    script = Path(sys.argv[0]).name
    if spec is not None:
        start = ["python", "-m", spec.name.removesuffix(".__main__")]
    elif script.endswith(".py") or not script[:1].isalnum():  # a file, or python -c
        start = ["python", script]
    else:  # a command that an installation made, such as merino or pytest
        start = [script]
    return shlex.join([*start, *map(_without_folders, sys.argv[1:])])


def _without_folders(argument: str) -> str:
    flag, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return flag + equals + (Path(value).name if Path(value).is_absolute() else value)


def restart_peak_memory() -> None:
    """Begin `peak_memory_bytes` anew. Linux only; elsewhere nothing happens."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int | None:
    """The most memory this process has held at a time since `restart_peak_memory`, engines' child processes left out.

    None where the system does not tell (anything but Linux).
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if line is None else 1024 * int(line.split()[1])


def counted(number: int, one: str, many: str | None = None) -> str:
    """1 design, 1,200 designs; `many` where an s is not enough."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def text_table(header: Sequence[str], lines: Sequence[Sequence[str]], left: set[int]) -> str:
    """A table for people: columns as wide as their widest cell, aligned right but for the columns numbered in `left`."""
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
    aligned = (
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (header, ["-" * width for width in widths], *lines)
    )
    return "\n".join(line.rstrip() for line in aligned)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; all columns but the first `left` are aligned right."""
    rule = [":--" if i < left else "--:" for i in range(len(header))]
    lines = (header, rule, *rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


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


def output_folder(path: str | os.PathLike[str]) -> Path:
    """A `writable_folder` in which no other process writes until the `command` that asked for it ends.

    Raises ValueError where another process does already.
    """
    return hold_folder(writable_folder(path))


def hold_folder(folder: Path) -> Path:
    """Keep other processes from writing to `folder` until the present `command` ends; see `locked`."""
    (held_by_command.get() or _until_exit).enter_context(locked(folder))
    return folder


_until_exit = ExitStack()
"""What is held outside of commands."""
atexit.register(_until_exit.close)


def command(main: Callable[_P, _R]) -> Callable[_P, _R]:
    """What stands above the `main` of a command: folders that it holds are free again when it ends."""

    @functools.wraps(main)
    def run(*arguments: _P.args, **options: _P.kwargs) -> _R:
        with ExitStack() as held:
            token = held_by_command.set(held)
            try:
                return main(*arguments, **options)
            finally:
                held_by_command.reset(token)

    return run


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


def run_command(main: Callable[..., int | None], *arguments: Any) -> NoReturn:
    """Run a command's `main(*arguments)` and leave with its `ExitCode`: what stands under `if __name__ == "__main__"`.

    A user's mistake (ValueError), a missing engine or package (ImportError) and a file that cannot be read or written
    (OSError) become one line "error: ..." on stderr, and so do Ctrl-C and memory that is used up. Anything else is ours, and is
    shown with its traceback. What the standard output cannot say is put in other signs.
    """
    open_at_start = _open_streams()
    try:
        if not open_at_start:
            raise BrokenPipeError
        code = main(*arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted: a file is written whole or not at all, so earlier results stand")
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        if not open_at_start:
            _say("error: the standard output is closed, so nobody would read the answer; send it to a file, or to /dev/null")
        code = ExitCode.UNREAD
    except OSError as error:
        _say(f"error: {_reason(error)}")
        code = ExitCode.MISTAKE
    except (ValueError, ImportError) as error:
        _say(f"error: {error}")
        code = ExitCode.MISTAKE
    except MemoryError as error:
        reason = str(error) or "nothing more can be allocated"
        _say(f"error: the memory is used up ({reason}); ask for less, or close other programs")
        code = ExitCode.NO_ANSWER
    except SystemExit as end:  # argparse's, or of code that must not choose our exit code
        code = end.code if end.code in (0, ExitCode.MISTAKE) else _fault(end)
    except Exception as error:
        code = _fault(error)
    _leave_output()
    sys.exit(code or ExitCode.DONE)


def _fault(error: BaseException) -> ExitCode:
    """Show an error that nobody expected."""
    traceback.print_exception(error)
    _say(
        f"error: this is a fault of ours ({type(error).__name__}: {error}); please report it with the command and the lines above. "
        "A file is written whole or not at all, so earlier results stand"
    )
    return ExitCode.FAULT


def _open_streams() -> bool:
    """Make the standard streams usable; False where nobody can read the standard output.

    Python has None for a stream that was closed (`>&-`), and the next file to be opened would get its number.
    """
    was_open = sys.stdout is not None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle == number:
                os.set_inheritable(handle, True)
            else:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))
    codecs.register_error("merino.signs", _other_signs)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="merino.signs")
    return was_open


def _other_signs(error: UnicodeError) -> tuple[str, int]:
    """The handler of what an encoding cannot say."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_other_sign, error.object[error.start : error.end])), error.end


def _other_sign(sign: str) -> str:
    greek, _, name = unicodedata.name(sign, "").rpartition(" LETTER ")
    plain = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
    return _SIGNS.get(sign) or plain or (name.lower() if greek.startswith("GREEK") else ascii(sign)[1:-1])


def _leave_output() -> None:
    """Python flushes the standard output at its end, and complains where nobody takes it: nothing may be left by then."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reason(error: OSError) -> str:
    """What went wrong and where, without the error's number."""
    what = str(error) if error.strerror is None else error.strerror.lower()
    return what if error.filename is None else f"{what}: {error.filename}"


def _say(sentence: str) -> None:
    print(" ".join(sentence.split()), file=sys.stderr)
