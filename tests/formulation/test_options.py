"""A command's options as a record: its own, and those that it shares with other commands."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import pytest

from formulation.command.options import read_options


@dataclass(frozen=True)
class Work:
    jobs: int
    output: str

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs is {self.jobs}; expected at least 1")


@dataclass(frozen=True)
class Options:
    names: tuple[str, ...]
    work: Work


@dataclass(frozen=True)
class Fewer:
    work: Work


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", default="out")
    return parser


def test_a_record_within_a_record_takes_its_own_options() -> None:
    assert read_options(Options, command_line(), ["a", "b", "--jobs", "3"]) == Options(("a", "b"), Work(3, "out"))


def test_each_record_checks_its_own() -> None:
    with pytest.raises(ValueError, match="jobs is 0; expected at least 1"):
        read_options(Options, command_line(), ["--jobs", "0"])


def test_an_option_without_a_field_is_a_fault_of_the_command() -> None:
    with pytest.raises(AssertionError, match="Fewer has no field for names"):
        read_options(Fewer, command_line(), ["a"])
