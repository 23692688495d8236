"""The links of the documentation to other servers, each asked for once: it needs the internet, so the build leaves it out.

    python docs/tools/external_links.py              ask for each
    python docs/tools/external_links.py --list       only list them

Exit code: 0 all answer, 1 some do not. A server that refuses programs (403, 429) counts as one that answers.
"""

from __future__ import annotations

import argparse
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("*.md", "docs/**/*.md", "notebooks/*.ipynb", "studies/*.py", "formulation/*.py", "solvers/*.py", "hardware_models/*.py")
_LINK = re.compile(r"https?://[^\s)\"'<>\\`\]]+")
_ANSWERS = (401, 403, 405, 429)


def external_links() -> dict[str, list[str]]:
    """Each link with the files that it stands in."""
    found: dict[str, list[str]] = {}
    for path in sorted({path for pattern in SOURCES for path in ROOT.glob(pattern)}):
        for link in dict.fromkeys(_LINK.findall(path.read_text(encoding="utf-8"))):
            found.setdefault(link.rstrip(".,;:"), []).append(path.relative_to(ROOT).as_posix())
    return found


def trouble(link: str, seconds: float = 20) -> str:
    """Why a link does not lead anywhere; empty where it does."""
    request = urllib.request.Request(link, headers={"User-Agent": "Mozilla/5.0 (check of links)"})
    try:
        with urllib.request.urlopen(request, timeout=seconds):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code in _ANSWERS else f"{error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(error)


def main() -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="only list them")
    options = parser.parse_args()
    broken = 0
    for link, files in external_links().items():
        reason = "" if options.list else trouble(link)
        broken += bool(reason)
        print(f"{link}  {', '.join(files)}{f'  BROKEN: {reason}' if reason else ''}", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
