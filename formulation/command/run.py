"""How every command runs and ends: held folders, errors in one sentence, exit codes, signs that the output can say."""

from __future__ import annotations

import codecs
import functools
import io
import os
import sys
import traceback
import unicodedata
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NoReturn, ParamSpec, TypeVar

from formulation.command.exit_code import ExitCode
from formulation.records.files import held_by_command

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
    except KeyboardInterrupt as stop:
        _say(str(stop) or "interrupted: a file is written atomically, so earlier results stand")
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
        "A file is written atomically, so earlier results stand"
    )
    return ExitCode.FAULT


def _open_streams() -> bool:
    """Make the standard streams usable; False if nobody can read the standard output.

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
