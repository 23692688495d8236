"""The documentation site: its examples run, its commands parse, its links lead somewhere, the reference is complete, and the tools
that build it do what they say."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import griffe
import pytest
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from merino_packages import load
from studies.design import study as design
from studies.front_door import COMMANDS, STUDY
from tests.shown import ROOT, arguments_of, blocks, check, commands, redirected
from tests.slow import slow

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "tools"))

import hooks  # noqa: E402
from formulas import mathml_of  # noqa: E402
from notebook_page import read_notebook  # noqa: E402

PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
PACKAGES = ("formulation", "solvers", "hardware_models", "merino_net")
MKDOCS = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, in which Python finds modules; nothing of an earlier page is remembered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("my_")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def save_files(page: str) -> list[str]:
    """Write the files that a page says to save into the current folder; their names."""
    saved = [block for block in blocks(page) if block.saved]
    for block in saved:
        Path(block.saved).write_text(block.text, encoding="utf-8")
    return [block.saved for block in saved]


def run(words: list[str]) -> None:
    """Run a command of ours."""
    ours = arguments_of(words)
    assert ours
    assert load(ours[0]).main(ours[1]) in (0, 1)  # 1: proved that there is no design


PYTHON = {name for name, text in PAGES.items() if any(block.language == "python" for block in blocks(text))}
QUICK = sorted(PYTHON - {"own_cost_model.md", "export.md"})  # the former: test_own_cost_model.py; the latter traces a network


@pytest.mark.parametrize("page", [*QUICK, *slow(["export.md"])])
def test_the_python_of_a_page_runs(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = save_files(PAGES[page])
    for words, file in redirected(PAGES[page]):
        if file and set(words) & set(saved):
            run(words)
            Path(file).write_text(capsys.readouterr().out, encoding="utf-8")
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(PAGES[page]):
        if block.language == "python" and not block.saved:
            exec(compile("\n" * (block.line - 1) + block.text, f"docs/{page}", "exec", dont_inherit=True), names)


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if any(commands(text))])
def test_the_commands_of_a_page_parse(page: str) -> None:
    for words in commands(PAGES[page]):
        try:
            check(words)
        except SystemExit:
            pytest.fail(f"docs/{page}: the parser refuses {shlex.join(words)}")


def test_commands_in_the_text_exist() -> None:
    named = {command for text in PAGES.values() for command in re.findall(r"`merino ((?:study )?[a-z_]+)", text)}
    assert len(named) > 10
    assert named - {STUDY} <= set(COMMANDS)


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if any(b.saved.endswith(".json") for b in blocks(text))])
def test_the_designs_of_a_page_are_found(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = save_files(PAGES[page])
    started = [arguments_of(words) for words in commands(PAGES[page]) if set(words) & set(saved)]
    designs = [
        arguments
        for module, arguments in filter(None, started)
        if module == "studies.design" and "--program" not in arguments  # what these write: test_the_python_of_a_page_runs
    ]
    assert designs
    for arguments in designs:
        assert design.main([*arguments, "--steps", "1", "--alternatives", "0"]) == 0
        assert "Proved optimal" in capsys.readouterr().out


def test_output_that_is_shown_is_what_comes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown: dict[str, list[str]] = {}
    for text in PAGES.values():
        if any(block.checked for block in blocks(text)):
            save_files(text)
        for block in blocks(text):
            if block.checked:
                shown.setdefault(block.checked, []).extend(block.text.splitlines())
    assert len(shown) >= 2
    for command, lines in shown.items():
        run(shlex.split(command))
        out = capsys.readouterr().out.splitlines()
        for line in lines:
            start = line.removesuffix("...")
            assert any(got == line or (start != line and got.startswith(start)) for got in out), f"{command}: {line}"


def test_every_page_is_in_the_navigation() -> None:
    navigation = MKDOCS.partition("\nnav:")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"[\w/]+\.md", navigation)) == sorted(PAGES)


def test_links_lead_somewhere() -> None:
    pages = {DOCS / name: text for name, text in PAGES.items()}
    pages |= {ROOT / name: (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "CHANGELOG.md")}
    for page, text in pages.items():
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            if not re.match(r"https?:", target):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_shows_every_public_name_once(package: str) -> None:
    shown = re.findall(r"^::: (\S+)", PAGES[f"reference/{package}.md"], re.MULTILINE)
    assert len(shown) == len(set(shown))
    # Of a name that a module bears as well, tools find the module: its page names the module before it.
    named = {name: f"{package}.{name}" for name in importlib.import_module(package).__all__}
    public = {f"{path}.{name}" if importlib.util.find_spec(path) else path for name, path in named.items()}
    assert public <= set(shown)
    for path in set(shown) - public:  # further ones, of a module; a module itself is shown for its docstring
        assert path.startswith(f"{package}.")
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name) or importlib.import_module(path)


def test_nothing_of_the_site_comes_from_a_server() -> None:
    assert "font: false" in MKDOCS
    files = [*DOCS.rglob("*.css"), *DOCS.rglob("*.js"), *DOCS.rglob("*.html")]
    assert len(files) >= 3
    assert [file for file in files if re.search(r"(?:src|href|url|import)\W{1,3}(?:https?:)?//", file.read_text())] == []


# What tools read in docstrings.


@pytest.mark.parametrize("package", [*PACKAGES, "studies"])
def test_docstrings_are_in_google_style(package: str, caplog: pytest.LogCaptureFixture) -> None:
    """A section that names what its function does not have is a warning of griffe's."""
    things, seen = [griffe.load(package, search_paths=[str(ROOT)], docstring_parser="google")], 0
    while things:
        thing = things.pop()
        things += [member for member in thing.members.values() if isinstance(member, griffe.Object)]
        if thing.docstring is not None:
            seen += len(thing.docstring.parsed)
            assert not re.search(r"^[a-z_]+(, [a-z_]+)* {2,}[A-Za-z]", thing.docstring.value, re.MULTILINE), thing.path
    assert seen > 50
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


# How notebooks become pages.


def notebook(folder: Path, *cells: dict[str, Any]) -> Path:
    path = folder / "01_wool.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    return path


def code(source: str, *outputs: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "code", "source": [source], "outputs": outputs, "metadata": metadata, "execution_count": 1}


def test_a_notebook_keeps_text_code_and_outputs(tmp_path: Path) -> None:
    picture = {
        "output_type": "display_data",
        "data": {"image/png": base64.b64encode(b"drawn").decode(), "text/plain": ["<Figure>"]},
    }
    table = {"output_type": "execute_result", "data": {"text/html": ["<table></table>"], "text/plain": ["x"]}}
    said = {"output_type": "stream", "name": "stdout", "text": ["\x1b[31m3 sheep\x1b[0m\n"]}
    page = read_notebook(
        notebook(
            tmp_path,
            {"cell_type": "markdown", "source": ["# Wool\n", "\n", "$x < y$ <details><summary>Why</summary>\n"], "metadata": {}},
            code("count()", said),
            code("draw()", picture, table),
            code("print('```')", jupyter={"source_hidden": True}),
            code(""),
        )
    )
    assert page.markdown.startswith('# Wool\n\n$x < y$ <details markdown="1"><summary>Why</summary>\n\n```python\ncount()\n```\n\n')
    assert "```text\n3 sheep\n```" in page.markdown
    assert "(01_wool_3_1.png){ .output }" in page.markdown
    assert page.pictures == {"01_wool_3_1.png": b"drawn"}
    assert '<div class="output">\n<table></table>\n</div>' in page.markdown
    assert "<summary>Solution</summary>\n\n````python\nprint('```')\n````" in page.markdown
    assert "Figure" not in page.markdown


def test_of_a_remote_picture_its_words_stay(tmp_path: Path) -> None:
    badge = {
        "cell_type": "markdown",
        "source": ["# Wool\n\n[![Open it](https://a.example/b.svg)](https://a.example/nb)"],
        "metadata": {},
    }
    assert "[Open it](https://a.example/nb)" in read_notebook(notebook(tmp_path, badge)).markdown


def test_a_notebook_that_failed_is_no_page(tmp_path: Path) -> None:
    failed = {"output_type": "error", "ename": "KeyError", "evalue": "'wool'", "traceback": []}
    with pytest.raises(ValueError, match=r"cell 1 of .*01_wool.ipynb ended in KeyError: 'wool'"):
        read_notebook(notebook(tmp_path, code("wool", failed)))
    (tmp_path / "02_none.ipynb").write_text("{}")
    with pytest.raises(ValueError, match="is not a notebook"):
        read_notebook(tmp_path / "02_none.ipynb")


# What the pages take from the repository.


REPOSITORY = "https://example.org/wool"


def configuration(**options: Any) -> MkDocsConfig:
    """A site's configuration without plugins."""
    config = MkDocsConfig()
    config.load_dict({"site_name": "Wool", "docs_dir": str(DOCS), "repo_url": REPOSITORY, "plugins": [], **options})
    assert config.validate() == ([], [])
    config.plugins._current_plugin = "hooks"  # what mkdocs sets while it calls them
    return config


def rendered(markdown: str, page: str = "reference/wool.md") -> tuple[str, Files]:
    """What the hooks make of the Markdown of a page, and the files of the site by then."""
    config = configuration()
    file = File(page, str(DOCS), "site", False)
    files = Files([file])
    return hooks.on_page_markdown(markdown, Page(None, file, config), config, files), files


def test_links_lead_to_where_things_are_on_the_site() -> None:
    text, files = rendered(
        "[a](../own_cost_model.md#a-formula) [b](../../solvers/base.py) [c](../../tests) ![d](../assets/logo.svg)"
    )
    assert text == (
        f"[a](../own_cost_model.md#a-formula) [b]({REPOSITORY}/blob/main/solvers/base.py) "
        f"[c]({REPOSITORY}/tree/main/tests) ![d](../assets/logo.svg)"
    )
    text, files = rendered('![front](../../studies/results/design/design.png) <img src="../../studies/results/design/design.png">')
    assert text.count("../repository/studies/results/design/design.png") == 2
    assert files.get_file_from_path("repository/studies/results/design/design.png") is not None
    untouched = "[e](https://x.org) [f](#here) [g](no_such_page.md) `[h](../../solvers/base.py)`\n\n```\n[i](../../LICENSE)\n```"
    assert rendered(untouched)[0] == untouched


def test_parts_are_included() -> None:
    front = rendered("<!-- include: introduction -->\n[x](own_cost_model.md)<!-- end --> [y](own_cost_model.md)", "index.md")[0]
    assert "](own_cost_model.md" in front
    assert "[x]" not in front
    with pytest.raises(PluginError, match="which is not a part"):
        rendered("<!-- include: wool --><!-- end -->")
    with pytest.raises(PluginError, match="without an <!-- end -->"):
        rendered("<!-- include: report -->")
    report = rendered("<!-- include: report --><!-- end -->")[0]
    assert "| the paper |" in report
    assert "# Does the paper hold?" not in report
    width = os.environ.get("COLUMNS")
    text = rendered("<!-- include: commands --><!-- end -->", "command_line.md")[0]
    assert re.findall(r"^### (merino .*)$", text, re.MULTILINE) == [f"merino {name}" for name in COMMANDS]
    assert "python -m studies.design --" not in text, "examples go by the name of the front door"
    assert os.environ.get("COLUMNS") == width


def test_formulas_become_mathml(caplog: pytest.LogCaptureFixture) -> None:
    page = Page(None, File("wool.md", str(DOCS), "site", False), configuration())
    html = hooks.on_page_content(r'<p><span class="arithmatex">\(\rho &lt; 1\)</span></p>', page)
    assert re.fullmatch(r'<p><math [^>]*display="inline"><mrow>.*(&lt;|&#x0003C;).*</mrow></math></p>', html)
    assert not caplog.records
    hooks.on_page_content(r'<div class="arithmatex">\[\flock{x}\]</div>', page)
    assert r"wool.md: the formula \flock{x} cannot be set (\flock is not known)" in caplog.text


def test_formulas_keep_their_layout() -> None:
    aligned = mathml_of(r"\begin{aligned} a &= m \log b \\ c &= d\end{aligned}", block=True)
    assert aligned.count("<mtr>") == 2
    assert re.search(r"<mo lspace[^>]*>log</mo>", aligned)
    total = r"\left[\sum_{j=1}^n \max_i x_{ij}\right]"
    assert "<munderover><mo>&#x02211;</mo>" in mathml_of(total, block=True)
    assert "<munder><mo lspace" in mathml_of(total, block=True)
    assert "<munder" not in mathml_of(total, block=False)
    for wrong in (r"\frac{1", r"a & b", r"\left( x"):
        with pytest.raises(ValueError, match=r"do not match|is not known|Error: "):
            mathml_of(wrong, block=True)


def test_notebooks_are_found_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "NOTEBOOKS", tmp_path)
    path = notebook(tmp_path, {"cell_type": "markdown", "source": ["# Wool\n\nHow it grows. And more."], "metadata": {}})
    path.with_name("02_shear.ipynb").write_bytes(path.read_bytes())
    config = configuration(nav=[{"Notebooks": ["notebooks/index.md"]}])
    assert hooks.on_config(config).nav == [{"Notebooks": [f"notebooks/{name}.md" for name in ("index", "01_wool", "02_shear")]}]
    assert hooks._list_of_notebooks().splitlines()[0] == "- [Wool](notebooks/01_wool.ipynb): How it grows."
