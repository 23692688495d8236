"""What ends with a process, who may write to a folder, and how a command ends, whatever happens to it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from formulation.command.exit_code import ExitCode
from formulation.command.processes import child_process, run_child, temporary_folder
from formulation.command.run import command, run_command
from formulation.records.files import locked, output_folder, replace_file, write_json
from formulation.records.rows import RowFile
from merino_packages import load
from studies import front_door

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 1200
"""How long a test waits for what happens at once on a machine that has time for it."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and locks of a Unix")


def wait_until(true: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        os.kill(process, 0)
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # no /proc, or it has just ended
        return os.path.exists("/proc/self") is False


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python with a program; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        line = [sys.executable, "-c", program, *arguments]
        started.append(subprocess.Popen(line, cwd=ROOT, env=environment, **streams))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


PARENT = """
import os, signal, subprocess, sys
for name in ('SIGTERM', 'SIGHUP'): signal.signal(getattr(signal, name), signal.SIG_DFL)  # nohup has its children ignore one
from formulation.command.processes import child_process, run_child, temporary_folder
STUBBORN = (
    "import os, pathlib, signal, sys, time\\n"
    "for name in ('SIGINT', 'SIGTERM', 'SIGHUP'): signal.signal(getattr(signal, name), signal.SIG_IGN)\\n"
    "if sys.argv[2] == 'asked': sys.stdin.readline()\\n"
    "pathlib.Path(sys.argv[1], 'made').write_text('x')\\n"
    "pathlib.Path(sys.argv[1] + '.number').write_text(str(os.getpid()))\\n"
    "while True: time.sleep(3600)"
)
with temporary_folder() as folder:
    if sys.argv[1] == "asked":
        with child_process([sys.executable, "-c", STUBBORN, str(folder), "asked"], stdin=subprocess.PIPE, text=True) as child:
            child.stdin.write("go\\n")
            child.stdin.flush()
            child.wait()
    else:
        run_child([sys.executable, "-c", STUBBORN, str(folder), "foreign"])
"""


@pytest.mark.parametrize("kind", ["asked", "foreign"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_children_and_their_folders_end_with_the_parent(
    kind: str, end: signal.Signals, python: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    parent = python(PARENT, kind)
    numbers = tmp_path.glob
    wait_until(lambda: any(file.read_text() for file in numbers("*.number")) or parent.poll() is not None, "no child started")
    assert parent.poll() is None
    [file] = numbers("*.number")
    child, folder = int(file.read_text()), file.with_suffix("")
    assert alive(child)
    assert (folder / "made").exists()
    parent.send_signal(end)
    parent.wait(PATIENCE_S)
    wait_until(lambda: not alive(child), "the child outlived its parent")
    wait_until(lambda: not folder.exists(), "the folder outlived its process")


def test_an_error_in_the_block_ends_the_child() -> None:
    with pytest.raises(ZeroDivisionError), child_process([sys.executable, "-c", "import time; time.sleep(3600)"]) as child:
        _ = 1 / 0
    assert child.returncode == -signal.SIGKILL


def test_a_program_runs_to_its_end() -> None:
    program = "import sys; print(sys.stdin.read() or 'nothing'); print('oh', file=sys.stderr); sys.exit(7)"
    ended = run_child([sys.executable, "-c", program], stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "nothing\n", "oh\n")


def test_a_keeper_that_was_ended_is_replaced(python: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    program = """
import sys
from formulation import processes
with processes.temporary_folder() as first:
    processes._keeper._process.kill()
    processes._keeper._process.wait()
    with processes.temporary_folder() as second:
        print(first, second, flush=True)
        sys.stdin.read()
"""
    parent = python(program, stdin=subprocess.PIPE)
    assert parent.stdout is not None
    folders = [Path(name) for name in parent.stdout.readline().split()]
    assert all(folder.is_dir() for folder in folders)
    parent.kill()
    wait_until(lambda: not any(folder.exists() for folder in folders), "a folder outlived its process")


def test_a_fork_does_not_hold_the_keeper_back(python: Callable[..., subprocess.Popen[str]]) -> None:
    program = """
import os, time
from formulation.command.processes import temporary_folder
with temporary_folder() as folder:
    fork = os.fork()
    if not fork:
        time.sleep(3600)
    print(folder, fork, flush=True)
    time.sleep(3600)
"""
    parent = python(program, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    folder, fork = parent.stdout.readline().split()
    try:
        parent.kill()
        wait_until(lambda: not Path(folder).exists(), "the folder waits for a fork")
    finally:
        os.kill(int(fork), signal.SIGKILL)


def test_a_temporary_folder_goes_with_its_block(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        (folder / "file").touch()
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import sys
from pathlib import Path
from formulation.records.files import output_folder
folder = output_folder(sys.argv[1])
(folder / f".summary.json.1234{'.unfinished'}").touch()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_has_one_writer(python: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    holder = python(HOLDER, str(folder), stdin=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=rf"out is in use by process {holder.pid} on .*choose another output folder"):
        output_folder(folder)
    holder.kill()
    holder.wait()

    @command
    def main() -> None:
        output_folder(folder)
        output_folder(folder)  # the same process may
        assert (folder / ".lock").read_text().startswith(f"process {os.getpid()} ")

    main()
    assert list(folder.iterdir()) == []  # neither the lock nor what the killed one left


def test_a_lock_beside_its_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "model", beside=True):
        assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]
    assert list(tmp_path.iterdir()) == []


def test_two_runs_at_once_measure_nothing_twice(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "studies.compare_solvers", "--budget", "flops=60e9", "--solvers", "dp", "--output", str(tmp_path)]
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".lock").open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        second = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert second.returncode == ExitCode.MISTAKE
    assert second.stderr.startswith(f"error: {tmp_path} is in use by another process")
    assert not (tmp_path / "rows.jsonl").exists()


def test_reading_rows_changes_nothing_and_writing_mends(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2')
    file = RowFile(path)
    assert file.rows == [{"a": 1}]
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2'
    with (tmp_path / ".lock").open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="in use"):
            file.append({"a": 3})
        with path.open("ab") as other:
            other.write(b"}\n")  # the other process was in the middle of the line
    file.append({"a": 4})
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n{"a": 4}\n'
    del file
    path.write_bytes(b'{"a": 1}\n{"a": 2')
    RowFile(path).append({"a": 5})
    assert path.read_bytes() == b'{"a": 1}\n{"a": 5}\n'
    path.write_bytes(b'{"a": 1}\n{"a": 2}')  # whole but for its end
    RowFile(path).append({"a": 6})
    assert [row["a"] for row in RowFile(path).rows] == [1, 2, 6]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_follow_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_json(tmp_path / "a.json", 1)
        write_json(tmp_path / "a.json", 2)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o666 & ~mask


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a"
    (tmp_path / ".a.0123.unfinished").touch()  # left by a killed process
    with replace_file(path) as file:
        file.write(b"1")
        with pytest.raises(ZeroDivisionError), replace_file(path):
            _ = 1 / 0
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("a", b"1")]


def test_a_name_that_is_not_utf_8_can_be_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "b\udcff ≤"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "b\udcff ≤"}


def ended(*arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A command, its standard streams redirected as a shell does."""
    line = ["/bin/sh", "-c", f'exec "$0" "$@" {shell}', sys.executable, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(line, cwd=ROOT, env=variables, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S)


TEXT = "2 ≤ 3 × ρ², é ☃ b\udcff"
SAYS = f"import sys; from formulation.command.run import run_command; run_command(lambda: print({TEXT!a}, flush=True))"


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "2 <= 3 x rho^2, e \\u2603 b\\udcff\n"),
        ({"PYTHONIOENCODING": "cp1252"}, "2 <= 3 � rho�, � \\u2603 b\\udcff\n"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "2 <= 3 x rho^2, e \\u2603 b\\udcff\n"),
        ({"PYTHONIOENCODING": "utf-8"}, "2 ≤ 3 × ρ², é ☃ b\\udcff\n"),
    ],
)
def test_signs_that_the_output_cannot_say(environment: dict[str, str], shown: str) -> None:
    done = ended("-c", SAYS, **environment)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", shown)


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        (">&-", ExitCode.UNREAD, "error: the standard output is closed, so nobody would read the answer"),
        ("2>&-", ExitCode.DONE, ""),
        ("<&-", ExitCode.DONE, ""),
        pytest.param(
            "> /dev/full",
            ExitCode.MISTAKE,
            "error: no space left on device",
            marks=pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full"),
        ),
    ],
)
def test_streams_that_are_closed_or_full(shell: str, code: int, said: str) -> None:
    done = ended("-c", SAYS, shell=shell)
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == bool(said)


def test_a_reader_that_leaves_is_no_answer() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", SAYS], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, timeout=PATIENCE_S)
    os.close(writing)
    assert (done.returncode, done.stderr) == (ExitCode.UNREAD, b"")


def raises(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: ExitCode.INFEASIBLE, 1, ""),
        (raises(ValueError("flops is 1;\n expected 2")), 2, "error: flops is 1; expected 2\n"),
        (raises(SystemExit(2)), 2, ""),
        (lambda: ExitCode.BROKEN_PROMISE, 3, ""),
        (raises(MemoryError()), 4, "error: the memory is used up (nothing more can be allocated); ask for less, or close other"),
        (raises(KeyError("width")), 70, "Traceback"),
        (raises(SystemExit(1)), 70, "Traceback"),
        (raises(SystemExit("gone")), 70, "Traceback"),
        (raises(AssertionError()), 70, "Traceback"),
        (raises(KeyboardInterrupt()), 130, "interrupted:"),
        (raises(BrokenPipeError()), 141, ""),
    ],
)
def test_exit_codes(main: Callable[[], int | None], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == code
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert bool(error) == bool(said)
    if code == ExitCode.FAULT:
        assert "please report it" in error.splitlines()[-1]


@pytest.mark.parametrize("name", front_door.COMMANDS)
def test_every_command_ends_a_mistake_with_2_and_a_fault_with_70(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    module = load(front_door.COMMANDS[name][0])
    with pytest.raises(SystemExit) as end:
        run_command(module.main, ["--no-such-flag"])
    assert end.value.code == ExitCode.MISTAKE
    monkeypatch.setattr(module, "command_line", lambda: 1 // 0)
    with pytest.raises(SystemExit) as end:
        run_command(module.main, [])
    assert end.value.code == ExitCode.FAULT
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_documentation_has_every_exit_code() -> None:
    page = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert [row for row in rows if row.isdigit()] == [str(int(code)) for code in ExitCode]


def test_python_without_docstrings_and_asserts(tmp_path: Path) -> None:
    program = f"""
import sys
class NoTorch:  # it takes its time
    def find_spec(name, path=None, target=None):
        if name == "torch":
            raise ImportError(name)
sys.meta_path.insert(0, NoTorch)
from merino_packages import load
from studies.front_door import COMMANDS
for module, _ in COMMANDS.values():
    try:
        load(module).command_line()
    except ImportError:
        pass
from studies.design.study import main
assert False, "asserts are not taken out"
code = main(["--budget", "flops=60e9", "--steps", "0", "--alternatives", "0", "--output", {str(tmp_path)!r}])
from hardware_models import Memory
try:
    Memory(activation_bits=-1)
except ValueError:
    print("refused")
raise SystemExit(code)
"""
    done = subprocess.run([sys.executable, "-OO", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("refused\n")
    assert "Proved optimal" in done.stdout
