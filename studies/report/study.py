"""Does the paper hold? Each of its claims beside what the committed results say, as one page of Markdown and one of HTML.

    python -m studies.report                                       of the results in the repository
    python -m studies.report --results results --output page       of your own

Measures nothing: a verdict follows from the result files (`studies.report.claims`), and beside each stands the command that makes
them again. Writes report.md and report.html.
"""

from __future__ import annotations

import argparse
import html
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formulation.command.help import command_parser
from formulation.command.run import command
from formulation.command.words import counted, markdown_table
from formulation.records.files import output_folder, replace_file
from studies.report.claims import CLAIMS, Claim, CommittedResults, Finding, Missing, Verdict

_MARKS = {
    Verdict.AGREES: "✓",
    Verdict.BY_CONSTRUCTION: "=",
    Verdict.PARTLY: "◐",
    Verdict.UNDECIDED: "?",
    Verdict.DISAGREES: "✗",
    Verdict.NOT_MEASURED: "–",
}
_INTRODUCTION = (
    "What the paper (MeRino, AAAI 2025) claims, in our words, and what was measured here. Its search, its objective's "
    "parameters and its trained networks are not public: the objective is our reconstruction, and networks were trained at a "
    "small part of the size. They were trained before the author's rules were known here, with positions and final norm as wide "
    "as the embedding and with GELU. A claim that does not agree may speak against the reconstruction or the scale as well as "
    "against the claim. One is not decided where what was measured is, with its error, compatible with it and with its "
    "contrary."
)
_HEADER = ("the paper", "measured here", "scale", "", "made by")
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;width:100%;margin-bottom:2em}"
    "td,th{border:1px solid #ccc;padding:.45em .6em;vertical-align:top;text-align:left}"
    "th{background:#f4f4f4}code{font-size:85%}td:nth-child(4){white-space:nowrap}"
)


@dataclass(frozen=True)
class ReportLine:
    """A claim with its finding and the commands that make its results."""

    claim: Claim
    finding: Finding
    commands: tuple[str, ...]


def lines_of(results: CommittedResults) -> list[ReportLine]:
    """All claims, judged. ValueError if a result file is there and cannot be read as one."""
    lines = []
    for claim in CLAIMS:
        try:
            finding = claim.judge(results)
        except Missing as missing:
            finding = Finding(Verdict.NOT_MEASURED, f"{missing} is not there", "")
        except (KeyError, StopIteration) as error:
            lacking = f" {error}" if error.args else " a design of this claim"
            finding = Finding(Verdict.NOT_MEASURED, f"the results of {', '.join(claim.results)} lack{lacking}", "")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the results of {', '.join(claim.results)} cannot be read ({type(error).__name__}: {error}); make them again"
            ) from error
        lines.append(ReportLine(claim, finding, _commands(claim, results)))
    return lines


def _commands(claim: Claim, results: CommittedResults) -> tuple[str, ...]:
    """How the results of a claim were made, by their own word."""
    found = []
    for name in claim.results:
        path = results.folder / name
        if path.is_file():
            found.append(_command_in(json.loads(path.read_text(encoding="utf-8"))) or f"python -m studies.{Path(name).parts[0]}")
    return tuple(dict.fromkeys(found))


def _command_in(record: Any) -> str | None:
    if isinstance(record, list):
        return next((row["command"] for row in record if isinstance(row, dict) and "command" in row), None)
    return record.get("provenance", {}).get("command") if isinstance(record, dict) else None


def summary_text(lines: list[ReportLine]) -> str:
    """How many claims agree."""
    verdicts = [line.finding.verdict for line in lines]
    parts = [f"{verdict.value} {verdicts.count(verdict)}" for verdict in Verdict if verdict in verdicts]
    return f"{counted(len(lines), 'claim')}: {', '.join(parts)}."


def _cells(line: ReportLine) -> tuple[str, str, str, str]:
    """What both pages say of a claim, but for the commands."""
    finding = line.finding
    return line.claim.text, finding.measured, finding.scale, f"{_MARKS[finding.verdict]} {finding.verdict.value}"


def markdown_page(lines: list[ReportLine]) -> str:
    """The page as Markdown: a table for each part."""
    parts = [f"# Does the paper hold?\n\n{_INTRODUCTION}\n\n{summary_text(lines)}"]
    for title, group in itertools.groupby(lines, key=lambda line: line.claim.part):
        rows = []
        for line in group:
            commands = "<br>".join(f"`{command}`" for command in line.commands) or "`python -m studies.report`"
            rows.append((*_cells(line), commands))
        parts.append(f"## {title}\n\n{markdown_table(_HEADER, rows, left=len(_HEADER))}")
    return "\n\n".join(parts) + "\n"


def html_page(lines: list[ReportLine]) -> str:
    """The page as one HTML file that needs no other."""
    colours = {
        Verdict.AGREES: "#e3f4e8",
        Verdict.BY_CONSTRUCTION: "#e6eefb",
        Verdict.PARTLY: "#fdf3d8",
        Verdict.UNDECIDED: "#f3ecfa",
        Verdict.DISAGREES: "#fbe3e0",
        Verdict.NOT_MEASURED: "#eeeeee",
    }
    head = f'<meta charset="utf-8"><title>Does the paper hold?</title><style>{_STYLE}</style>'
    parts = [
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>',
        f"<h1>Does the paper hold?</h1><p>{html.escape(_INTRODUCTION)}</p>",
        f"<p><strong>{html.escape(summary_text(lines))}</strong></p>",
    ]
    titles = "".join(f"<th>{title}</th>" for title in _HEADER)
    for title, group in itertools.groupby(lines, key=lambda line: line.claim.part):
        parts.append(f"<h2>{html.escape(title)}</h2><table><tr>{titles}</tr>")
        for line in group:
            commands = "<br>".join(
                f"<code>{html.escape(command)}</code>" for command in line.commands or ("python -m studies.report",)
            )
            cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(line))
            parts.append(f'<tr style="background:{colours[line.finding.verdict]}">{cells}<td>{commands}</td></tr>')
        parts.append("</table>")
    return "\n".join([*parts, "</body></html>"]) + "\n"


@command
def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = command_line().parse_args(arguments)
    results = CommittedResults(Path(options.results))
    if not results.folder.is_dir():
        raise ValueError(f"there is no folder {results.folder}; expected one with a folder for each study, such as studies/results")
    folder = output_folder(options.output)
    lines = lines_of(results)
    for name, page in (("report.md", markdown_page(lines)), ("report.html", html_page(lines))):
        with replace_file(folder / name) as file:
            file.write(page.encode())
    for line in lines:
        print(f"{_MARKS[line.finding.verdict]} {line.claim.text}\n    {line.finding.measured}")
    print(f"{summary_text(lines)} The pages are in {folder}")
    return 0


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument(
        "--results", default="studies/results", metavar="DIR", help="folder with a folder for each study (default: %(default)s)"
    )
    parser.add_argument("--output", default="results/report", metavar="DIR", help="folder of the pages (default: %(default)s)")
    return parser
