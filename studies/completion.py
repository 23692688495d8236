"""Completion of `merino` in a shell: its commands, their flags, the choices of a flag, files and folders.

    python -m studies.completion bash > ~/.local/share/bash-completion/completions/merino
    python -m studies.completion zsh > ~/.zfunc/_merino
    python -m studies.completion fish > ~/.config/fish/completions/merino.fish

A line installs it, once its folder exists; new shells then have it. bash reads that folder by the package bash-completion (without
it: source the file in ~/.bashrc), zsh any folder that `fpath+=~/.zfunc` names before `compinit` in ~/.zshrc.
The script is made of the parsers that the commands themselves use, whether or not their extras are installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import shtab

from formulation.command.help import command_parser
from formulation.command.run import run_command
from merino_packages import load
from studies.front_door import COMMANDS, STUDY
from studies.front_door import command_line as front_door

SHELLS = ("bash", "zsh", "fish")

COMPLETED = {
    "FILE": shtab.FILE,
    "FILE.csv": shtab.FILE,
    "NAME|FILE": shtab.FILE,
    "DESIGN": shtab.FILE,
    "SOURCE": shtab.FILE,
    "DIR": shtab.DIRECTORY,
    "FOLDER": shtab.DIRECTORY,
    "MODEL": shtab.DIRECTORY,
}
"""What a parser calls its value -> what completes it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the script; returns the exit code."""
    options = command_line().parse_args(arguments)
    print(shtab.complete(whole_parser(), options.shell))
    return 0


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("shell", choices=SHELLS, help="whose script to print")
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """One parser of the whole front door."""
    parser = front_door()
    commands = parser.add_subparsers()
    studies = commands.add_parser(STUDY, help="the experiments").add_subparsers()
    for name, (module, gives) in COMMANDS.items():
        group = studies if name.startswith(f"{STUDY} ") else commands
        own = group.add_parser(name.rpartition(" ")[2], help=gives, parents=[load(module).command_line()], add_help=False)
        for action in own._actions:  # argparse has no public list of them
            if isinstance(action.metavar, str) and action.metavar in COMPLETED:
                action.complete = COMPLETED[action.metavar]  # type: ignore[attr-defined]
    return parser


if __name__ == "__main__":
    run_command(main)
