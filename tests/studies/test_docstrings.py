"""The text of docstrings: what is found, what is left out, and how it is divided."""

from __future__ import annotations

from pathlib import Path

import pytest

from merino_net.corpus.text import Text
from studies.lessons.docstrings import docstrings, standard_library, write_split


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    write(
        tmp_path,
        "a.py",
        '"""Module a."""\ndef f():\n    """Say f.\n\n    Twice."""\nclass C:\n    "Class C."\n    def g(self):\n        pass\n',
    )
    write(tmp_path, "b/c.py", '"""Module a."""\nasync def h():\n    """Say h."""\n')
    write(tmp_path, "b/repeats.py", '"""Module a."""\ndef f():\n    """Say h."""\n')
    write(tmp_path, "broken.py", '"""Not Python"""\ndef (:\n')
    write(tmp_path, "empty.py", "x = 1\n")
    write(tmp_path, "test/t.py", '"""A test."""\n')
    write(tmp_path, "site-packages/p.py", '"""Somebody else\'s."""\n')
    return tmp_path


def test_each_docstring_once_in_the_order_of_files_and_lines(library: Path) -> None:
    assert docstrings(library) == {"a.py": "Module a.\n\nSay f.\n\nTwice.\n\nClass C.", "b/c.py": "Say h."}


def test_a_folder_without_docstrings_is_a_sentence(tmp_path: Path) -> None:
    write(tmp_path, "x.py", "x = 1\n")
    with pytest.raises(ValueError, match=r"docstring; .*folder of a library"):
        docstrings(tmp_path)


def test_the_split_is_of_whole_documents_and_repeats_under_its_seed(tmp_path: Path) -> None:
    documents = {f"{number}.py": f"Document {number}.\n\nIts end." for number in range(20)}
    for folder in ("one", "two", "other"):
        (tmp_path / folder).mkdir()
    training, held_out = write_split(documents, 0.2, 0, tmp_path / "one")
    parts = [list(Text((str(path),)).documents()) for path in (training, held_out)]
    assert [len(part) for part in parts] == [16, 4]
    # Text ends a document where its own line begins: the line end before it belongs to the document.
    assert sorted(text.strip() for part in parts for text in part) == sorted(documents.values())
    again = write_split(documents, 0.2, 0, tmp_path / "two")
    assert [path.read_bytes() for path in again] == [training.read_bytes(), held_out.read_bytes()]
    assert write_split(documents, 0.2, 1, tmp_path / "other")[1].read_bytes() != held_out.read_bytes()
    with pytest.raises(ValueError, match="leaves none to hold out"):
        write_split(documents, 0.001, 0, tmp_path / "one")


def test_this_python_has_enough_to_train_on() -> None:
    folder = standard_library()
    some = docstrings(folder / "json") | docstrings(folder / "email")
    assert sum(map(len, some.values())) > 20_000
    assert "decoder.py" in some
