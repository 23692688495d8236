"""The page on own cost models: its files, its commands and its Python run as they stand."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from formulation import Separable
from hardware_models.names import quantity_from_dict, quantity_to_dict, read_quantity
from solvers import Status
from studies.compare_solvers import study as compare_solvers
from studies.design import study as design

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "own_cost_model.md").read_text(encoding="utf-8")
COSTS, SCRIPT = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL) if not block[0] for line in block[1].splitlines()]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's own file, as the current one."""
    (tmp_path / "my_costs.py").write_text(COSTS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_costs", raising=False)
    return tmp_path


def arguments_of(start: str) -> list[str]:
    (command,) = (line for line in COMMANDS if line.startswith(start))
    return shlex.split(command)[2:]


def test_a_formula_is_designed_for_and_verified(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert design.main(arguments_of("merino design --budget my_costs:Energy")) == 0
    assert "energy ≤ 0.15 J" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"'my_costs:Energy'.*'my_costs'.*--trust-code"):
        design.main(["--verify", "results/design/design.json"])
    assert design.main(["--verify", "results/design/design.json", "--trust-code"]) == 0
    assert "Verified is what the problem says now" not in capsys.readouterr().err


def test_a_black_box_is_measured_and_designed_for(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = arguments_of("merino design --budget my_costs:simulated_latency")
    assert design.main([*command, "--steps", "1", "--alternatives", "0"]) == 0
    assert "ms when called for this design" in capsys.readouterr().out
    assert design.main(["--verify", "results/design/design.json"]) == 0
    with pytest.raises(ValueError, match="is a black box, which no exact solver can search; add --measure 60"):
        design.main(command[:-2])


def test_heuristics_compare_on_a_black_box(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = arguments_of("merino compare")
    assert compare_solvers.main([*command[:-1], "0.5", "--seeds", "1", "--output", "compare"]) == 0
    assert "only heuristics take part: ea, ga, random" in capsys.readouterr().err


def test_the_script_runs(page: Path) -> None:
    (page / "script.py").write_text(SCRIPT.replace("evaluations=500", "evaluations=50"), encoding="utf-8")
    names = runpy.run_path("script.py")
    assert names["exact"].status is Status.OPTIMAL
    assert names["heuristic"].status is Status.FEASIBLE
    assert names["exact"].objective >= names["heuristic"].objective * 0.999
    assert (page / "my_board.jsonl").exists()


def test_plug_ins_with_options_and_objects(page: Path) -> None:
    (page / "my_costs.py").write_text(COSTS + "\nsmall_board = Energy(0.5)\nword = 'x'\n", encoding="utf-8")
    energy = quantity_from_dict({"quantity": "my_costs:Energy", "nanojoule": 0.5}, trust_code=True)
    assert isinstance(energy, Separable)
    assert energy == read_quantity("my_costs:small_board")
    assert quantity_to_dict(read_quantity("my_costs:Energy")) == {"quantity": "my_costs:Energy", "nanojoule": 2.0}
    assert quantity_from_dict(quantity_to_dict(energy), trust_code=True) == energy


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:Cost", "cannot import 'no_such_module'"),
        ("my_costs:Nothing", "my_costs has no quantity or function 'Nothing'"),
        (":Cost", "names no module that can be imported"),
    ],
)
def test_plug_ins_that_are_none(page: Path, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_quantity(name)


def test_options_that_a_plug_in_has_not(page: Path) -> None:
    with pytest.raises(ValueError, match=r"my_costs:Energy cannot be made with the options \{'watt': 1\}"):
        quantity_from_dict({"quantity": "my_costs:Energy", "watt": 1}, trust_code=True)
    with pytest.raises(ValueError, match="takes no options"):
        quantity_from_dict({"quantity": "my_costs:simulated_latency", "watt": 1}, trust_code=True)


def test_what_goes_wrong_in_a_module_of_the_user_s_is_a_sentence(page: Path) -> None:
    (page / "broken.py").write_text("def cost(:\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"names no module that can be imported \(SyntaxError"):
        read_quantity("broken:cost")
    (page / "odd.py").write_text("def none(design):\n    pass\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"odd:none failed for the design .* \(TypeError"):
        design.main(["--budget", "odd:none=1", "--measure", "20"])


def test_shares_of_memory_are_written_and_read(page: Path) -> None:
    for device in ("raspberry-pi-4", "jetson-nano", "amd-epyc-2cpu"):
        share = read_quantity(f"memory-share@{device}")
        assert quantity_to_dict(share)["device"] == device
        assert quantity_from_dict(quantity_to_dict(share)) == share
    with pytest.raises(ValueError, match="nothing says how much memory xeon has"):
        read_quantity("memory-share@xeon")
