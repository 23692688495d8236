"""How a command ended, in one number with one meaning each."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command; `meaning` puts them into words."""

    DONE = 0
    INFEASIBLE = 1
    MISTAKE = 2
    BROKEN_PROMISE = 3
    NO_ANSWER = 4
    FAULT = 70
    INTERRUPTED = 130
    UNREAD = 141

    @property
    def meaning(self) -> str:
        """What the code says, for people."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.INFEASIBLE: "proved infeasible: no design meets the budgets",
    ExitCode.MISTAKE: "a mistake in the command, or something it names is wrong or missing",
    ExitCode.BROKEN_PROMISE: "a promise is broken: a budget is exceeded, or a proof does not hold",
    ExitCode.NO_ANSWER: "a limit (time, memory) ended it without an answer",
    ExitCode.FAULT: "a fault of ours, with a traceback for the report",
    ExitCode.INTERRUPTED: "ended by Ctrl-C",
    ExitCode.UNREAD: "nobody reads the standard output: it is closed, or its reader has left",
}
