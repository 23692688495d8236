"""Importing merino_net asks for no torch; transformers knows the network all the same, and what needs torch says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import merino_net
from merino_net import evaluate, export, generate, quantize, train

ROOT = Path(__file__).resolve().parents[2]
ORDERS = {
    "import merino_net": False,
    "import transformers.models.auto.modeling_auto, merino_net": True,
    "import merino_net; merino_net.MerinoForCausalLM": True,
    "import merino_net.network.modeling_merino": True,
}
"""What is imported first, and whether that loads transformers."""
PROGRAM = """
import os, sys, torch
for first in sys.argv[1:]:
    if os.fork():  # each in a process that has torch, which takes a second to load, and nothing else
        assert os.wait()[1] == 0, first
        continue
    exec(first)
    loaded = "transformers" in sys.modules
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
    config = type(AutoConfig.for_model("merino"))
    print(loaded, config.__name__, AutoModelForCausalLM._model_mapping[config].__name__, "merino" in AUTO_QUANTIZER_MAPPING)
    break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
def test_transformers_knows_the_network_in_whatever_order_they_are_imported() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, *ORDERS], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [f"{loaded} MerinoConfig MerinoForCausalLM True" for loaded in ORDERS.values()]


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_without_the_extra_a_command_says_what_to_install(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]  # Python's own sign of what cannot be imported
    text, folder = tmp_path / "text.txt", str(tmp_path)
    text.write_text("The mill")
    commands = {
        train.main: ["MeRino-52M", "--output", folder],
        evaluate.main: [folder, "--text", str(text), "--output", folder],
        generate.main: [folder],
        quantize.main: [folder, "--method", "rtn", "--bits", "8", "--output", str(tmp_path / "quantized")],
        export.main: [folder, "--to", "hf", "--output", str(tmp_path / "exported")],
    }
    for main, arguments in commands.items():
        with pytest.raises(ImportError, match=f"merino_net needs {package}: install the extra net"):
            main(arguments)  # type: ignore[operator]
    with pytest.raises(ImportError, match=f"merino_net needs {package}: install the extra net"):
        merino_net.__getattr__("MerinoConfig")


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="'merino_net' has no attribute 'Merino'"):
        merino_net.Merino  # noqa: B018
