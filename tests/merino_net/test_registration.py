"""Importing merino_net asks for no torch; transformers knows the network all the same, and what needs torch says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import merino_net
from merino_net import evaluate, export, generate, quantize, train

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
{first}
{second}
loaded = "torch" in sys.modules
from transformers import AutoConfig, AutoModelForCausalLM
print(loaded, type(AutoConfig.for_model("merino")).__name__)
print(AutoModelForCausalLM._model_mapping[type(AutoConfig.for_model("merino"))].__name__)
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
print("merino" in AUTO_QUANTIZER_MAPPING)
"""


@pytest.mark.parametrize(
    ("first", "second", "loaded"),
    [
        ("import merino_net", "", "False"),
        ("from transformers import AutoModelForCausalLM", "import merino_net", "True"),
        ("import merino_net", "from merino_net import MerinoForCausalLM", "True"),
    ],
)
def test_transformers_knows_the_network_in_whatever_order_they_are_imported(first: str, second: str, loaded: str) -> None:
    program = PROGRAM.format(first=first, second=second)
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert ended.stdout.split() == [loaded, "MerinoConfig", "MerinoForCausalLM", "True"], ended.stderr


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
        export.main: [folder, "--no-onnx", "--output", str(tmp_path / "exported")],
    }
    for main, arguments in commands.items():
        with pytest.raises(ImportError, match=f"merino_net needs {package}: install the extra net"):
            main(arguments)  # type: ignore[operator]
    with pytest.raises(ImportError, match=f"merino_net needs {package}: install the extra net"):
        merino_net.__getattr__("MerinoConfig")


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="'merino_net' has no attribute 'Merino'"):
        merino_net.Merino  # noqa: B018
