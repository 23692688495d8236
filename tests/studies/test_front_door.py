"""The front door: every command is behind it, goes by the name that was typed, and completes in a real shell."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import EntryPoint, version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import merino_packages
from formulation.command.exit_code import ExitCode
from formulation.command.help import called, command_parser
from formulation.records.provenance import provenance
from merino_net.shipping.runtimes import RUNTIMES
from merino_packages import load
from studies import completion
from studies.front_door import COMMANDS, GROUPS, main

ROOT = Path(__file__).resolve().parents[2]
MODULES = {name: module for name, (module, _) in COMMANDS.items()}
SCRIPT = "import sys\nfrom studies.front_door import main\nsys.exit(main())\n"
"""What an installation makes of the line in pyproject.toml."""
COMPLETE = r"""
source "$1"
COMP_WORDS=($2)
if [[ $2 == *" " ]]; then COMP_WORDS+=(""); fi
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
registered=$(complete -p merino)
[[ $registered =~ -F\ ([^ ]+) ]] && "${BASH_REMATCH[1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""
"""What bash does when the tabulator key is pressed behind the words $2, with the script $1."""


def leave(arguments: Sequence[str]) -> Any:
    """The exit code of the front door, whether it returns or exits."""
    with pytest.raises(SystemExit) as left:
        sys.exit(main(arguments))
    return left.value.code


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A process of its own, in the repository, under a terminal wide enough for every usage to start on one line."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, **options
    )


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Modules are replaced by one whose `main` notes what it is given, and returns or raises what `end` says."""
    seen: dict[str, Any] = {"end": None}

    def act(arguments: Sequence[str]) -> int | None:
        seen["arguments"] = list(arguments)
        if isinstance(seen["end"], BaseException):
            raise seen["end"]
        return seen["end"]

    def play(module: str) -> Any:
        seen["module"] = module
        return SimpleNamespace(main=act)

    monkeypatch.setattr(merino_packages, "load", play)
    return seen


def test_the_installation_makes_it() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts.keys() == {"merino"}
    assert EntryPoint("merino", scripts["merino"], "console_scripts").load() is main


def test_every_command_of_the_house_is_behind_it() -> None:
    files = [file for package in ("studies", "merino_net", "hardware_models") for file in (ROOT / package).rglob("*.py")]
    started = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for file in files
        if 'if __name__ == "__main__":' in file.read_text(encoding="utf-8")
    }
    # The second is copied to devices that have nothing else, the third is started by a study, clients by their runtime's record.
    alone = {"studies.front_door", "hardware_models.profile_standalone", "studies.exact_methods.process"}
    alone |= {f"merino_net.shipping.clients.{Path(runtime.client).stem}" for runtime in RUNTIMES.values()}
    assert started - alone == set(MODULES.values())
    assert len(COMMANDS) == sum(map(len, GROUPS.values()))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_gets_the_rest_of_the_line(name: str, played: dict[str, Any]) -> None:
    rest = ["--budget", "flops=60e9", "--", "--help", "-h", "study"]
    assert leave([*name.split(), *rest]) == 0
    assert (played["module"], played["arguments"]) == (MODULES[name], rest)


def test_hyphens_stand_for_underscores(played: dict[str, Any]) -> None:
    assert leave(["study", "zero-shot", "--data-dir", "a-b"]) == 0
    assert (played["module"], played["arguments"]) == ("studies.zero_shot", ["--data-dir", "a-b"])


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (ValueError("the space is\n  empty"), 2, "error: the space is empty\n"),
        (ImportError("merino_net needs torch"), 2, "error: merino_net needs torch\n"),
        (FileNotFoundError(2, "No such file", "a.json"), 2, "error: no such file: a.json\n"),
        (KeyboardInterrupt(), 130, "interrupted: a file is written atomically, so earlier results stand\n"),
    ],
)
def test_exit_codes_and_sentences_are_those_of_the_commands(
    end: Any, code: int, said: str, played: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    played["end"] = end
    assert leave(["design"]) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("desing", "merino design"),
        ("quantise", "merino quantize"),
        ("compare_solvers", "merino compare"),
        ("ablation", "merino study ablation"),
        ("study zero-shoot", "merino study zero_shot"),
        ("study design", "merino design"),
        ("xyzzy", None),
    ],
)
def test_a_mistyped_command_suggests_the_nearest(typed: str, meant: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(typed.split()) == 2
    out, error = capsys.readouterr()
    hint = "" if meant is None else f"; did you mean {meant}?"
    assert (out, error) == ("", f"error: unknown command {typed.replace('-', '_')!r}{hint} (merino --help lists all commands)\n")


def test_its_help_lists_every_command_by_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(["--help"]) == 0
    shown = capsys.readouterr().out
    assert leave([]) == 0
    assert capsys.readouterr().out == shown
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 88
    for group, commands in GROUPS.items():
        first = lines.index("experiments (merino study NAME):" if group == "experiments" else f"{group}:") + 1
        listed = lines[first : first + len(commands)]
        assert [line.split()[0] for line in listed] == list(commands)
    for unit in ("GFLOPs", "million parameters", "ms"):
        assert unit in shown
    assert shown.isascii()  # it is printed before the terminal's encoding is known
    assert [line for line in lines if line[:5].strip().isdigit()] == [f"  {code:3}  {code.meaning}" for code in ExitCode]
    assert leave(["study", "--help"]) == leave(["study"]) == 0
    assert "usage: merino study NAME" in capsys.readouterr().out


def test_its_own_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(["--version"]) == 0
    assert capsys.readouterr().out == f"merino {version('merino')}\n"
    assert leave(["--space", "fine"]) == 2
    assert "merino: error: unrecognized arguments: --space" in capsys.readouterr().err


def test_nothing_heavy_is_imported_before_a_command_is_known() -> None:
    program = """
import sys
from studies.front_door import main
for words in (["--help"], ["--version"], ["desing"], ["study"], ["study", "ablaton"], ["--space"]):
    try:
        main(words)
    except SystemExit:
        pass
house = {name.partition(".")[0] for name in sys.modules} & {"numpy", "scipy", "torch", "matplotlib", "formulation", "shtab"}
sys.exit(f"imported: {house}" if house else 0)
"""
    ended = python("-c", program)
    assert ended.returncode == 0, ended.stderr


def test_the_help_of_design_needs_no_torch() -> None:
    program = (
        "import atexit, sys\nfrom studies.front_door import main\natexit.register(lambda: print('torch' in sys.modules))\nmain()"
    )
    ended = python("-c", program, "design", "--help")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("usage: merino design [-h]")
    assert ended.stdout.endswith("False\n")


@pytest.mark.parametrize(("name", "module"), MODULES.items())
def test_help_names_the_command_as_it_was_typed(
    name: str, module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    plain = load(module).command_line()
    assert leave([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    for title, text in ((f"merino {name}", shown), (f"python -m {module}", plain.format_help())):
        if plain.usage is None:
            assert text.startswith(f"usage: {title} [-h]")
        description, examples = text.split("examples:\n")
        assert f"    {title}" in examples
        assert load(module).__doc__.split("\n")[0] in description  # type: ignore[union-attr]
    assert "python -m" not in shown
    assert "    merino" not in plain.format_help()


@pytest.mark.parametrize("module", MODULES.values())
def test_every_flag_says_what_it_is(module: str) -> None:
    for action in load(module).command_line()._actions:
        assert action.help, action.option_strings
        assert not action.help.startswith("(default"), action.option_strings
        if action.type in (int, float):
            assert action.metavar or action.choices, action.option_strings


def test_started_as_modules_they_name_the_module() -> None:
    assert python("-m", "studies.report", "--help").stdout.startswith("usage: python -m studies.report [-h]")
    ended = python("-m", "studies.front_door", "study", "report", "--help")
    assert ended.stdout.startswith("usage: python -m studies.front_door study report [-h]")
    assert "\n    python -m studies.front_door study report --results results" in ended.stdout
    assert python("-m", "studies.front_door", "study", "reprot").stderr.startswith(
        "error: unknown command 'study reprot'; did you mean python -m studies.front_door study report?"
    )


def test_results_record_the_command_as_typed(tmp_path: Path) -> None:
    (tmp_path / "merino").write_text(SCRIPT)
    words = ["design", "--budget", "flops=60e9", "--alternatives", "0", "--steps", "0", "--output", str(tmp_path / "out")]
    ended = python(str(tmp_path / "merino"), *words)
    assert ended.returncode == 0, ended.stderr
    record = json.loads((tmp_path / "out" / "design.json").read_text(encoding="utf-8"))
    assert record["provenance"]["command"] == "merino design --budget flops=60e9 --alternatives 0 --steps 0 --output out"


@pytest.mark.parametrize(
    ("spec", "typed", "command"),
    [
        (None, ["/opt/venv/bin/merino", "study", "ablation", "--seeds", "5"], "merino study ablation --seeds 5"),
        (None, ["study.py", "--text", "/data/a b.txt"], "python study.py --text 'a b.txt'"),
        (None, ["-c"], "python -c"),
        ("studies.front_door", ["front_door.py", "design"], "python -m studies.front_door design"),
        ("studies.design", ["design.py", "p.json"], "python -m studies.design p.json"),
        ("pytest.__main__", ["__main__.py"], "python -m pytest"),
    ],
)
def test_the_command_is_recorded_as_typed(
    spec: str | None, typed: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = ModuleType("__main__")
    started.__spec__ = None if spec is None else importlib.machinery.ModuleSpec(spec, None)
    monkeypatch.setitem(sys.modules, "__main__", started)
    monkeypatch.setattr(sys, "argv", typed)
    assert provenance(0)["command"] == command


def test_a_docstring_becomes_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "42")
    document = """What it does, said in a sentence that is longer than a line.

    python -m some.module --flag     kept as it is, however long
    echo x | .venv/bin/python -m some.module

It writes some-hyphenated.json and a figure.
A list:
    one    kept
    two    kept as well, even where it is longer than the line
"""
    spec = importlib.machinery.ModuleSpec("some.module", None)
    with called({"some.module": "tool some"}):
        shown = command_parser(spec, document, "notes:\n    all").format_help()
    assert command_parser(spec, document).prog == "python -m some.module"
    assert shown == (
        "usage: tool some [-h]\n\nWhat it does, said in a sentence that is\nlonger than a line.\n\n"
        "options:\n  -h, --help  show this help message and\n              exit\n\n"
        "examples:\n    tool some --flag     kept as it is, however long\n    echo x | .venv/bin/tool some\n\n"
        "It writes some-hyphenated.json and a\nfigure. A list:\n    one    kept\n"
        "    two    kept as well, even where it is longer than the line\n\nnotes:\n    all\n"
    )
    bare = command_parser(None, None)
    assert bare.prog == Path(sys.argv[0]).name
    assert "examples" not in bare.format_help()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The completion script for bash."""
    path = tmp_path_factory.mktemp("shell") / "merino"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as file:
        patch.setattr(sys, "stdout", file)
        assert completion.main(["bash"]) == 0
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("merino de", {"design"}),
        ("merino study zero", {"zero_shot"}),
        ("merino design --budg", {"--budget"}),
        ("merino study ablation --parts ", {"sharing", "objective", "wide-deep"}),
        ("merino quantize results --method gptq --bits ", {"4", "8"}),
        ("merino completion ", {"bash", "zsh", "fish"}),
        ("merino design pro", {"problem.json", "problems"}),
        ("merino train a.json --output pro", {"problems"}),
        ("merino study report --", {"--help", "--results", "--output"}),
    ],
)
def test_bash_completes(words: str, completed: set[str], script: Path, tmp_path: Path) -> None:
    (tmp_path / "problem.json").touch()
    (tmp_path / "problems").mkdir()
    command = ["bash", "--norc", "-c", COMPLETE, "bash", str(script), words]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert ended.stderr == ""
    assert set(ended.stdout.split()) == completed


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_scripts_hold_commands_and_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert completion.main([shell]) == 0
    text, said = capsys.readouterr()
    assert said == ""
    for word in ("merino", "proxy_correlation", "latency_check", "extrapolate", "openvino", "held-out-text", "quantize"):
        assert word in text
