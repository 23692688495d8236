# Every target runs in .venv, made here from pyproject.toml and constraints.txt. What is needed beforehand: make and Python >= 3.11.
# GPTQ has an environment of its own, .venv-quantize, made from constraints-quantize.txt: its library wants an older transformers.
# So has ExecuTorch, .venv-executorch: with torchao, which it brings, every command that loads transformers prints warnings.
#   make compare ARGS="--quick"    flags for the study; the same for make test
#   make test PYTHON=python3.12    another Python for a new .venv

PYTHON ?= python3
ARGS =

VENV := .venv
IN_VENV := $(VENV)/bin/python
# An empty file here is newer than pyproject.toml and constraints.txt where their packages are installed.
MAIN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
INSTALL := $(IN_VENV) -m pip install --quiet --disable-pip-version-check -c constraints.txt
QUANTIZE_VENV := .venv-quantize
QUANTIZE := $(QUANTIZE_VENV)/.installed
EXECUTORCH_VENV := .venv-executorch
EXECUTORCH := $(EXECUTORCH_VENV)/.installed

.PHONY: help compare design test lint types notebooks docs docs-links quantize-environment test-quantize executorch-environment test-executorch clean
.DEFAULT_GOAL := help

help:
	@echo "make compare  run every solver on the same design problem and compare them"
	@echo "make design   the best design for your budgets: make design ARGS='--space fine --budget flops=60e9'"
	@echo "make test     run the tests that take minutes at most"
	@echo "make lint     check format and style"
	@echo "make types    check types"
	@echo "make notebooks  execute every notebook"
	@echo "make docs     build the documentation site into site/; open site/index.html"
	@echo "make docs-links  ask every server that the documentation links to"
	@echo "make quantize-environment  make .venv-quantize, the environment of GPTQ; make test-quantize runs its tests there"
	@echo "make executorch-environment  make .venv-executorch, the environment of ExecuTorch; make test-executorch runs its tests there"
	@echo "make clean    delete .venv and what the tools left behind"

compare: $(MAIN)
	$(IN_VENV) -m studies.compare_solvers $(ARGS)

design: $(MAIN)
	$(IN_VENV) -m studies.design $(ARGS)

# A module stays with one worker: what its tests share, such as a trained network, is made once.
test: $(DEV)
	$(IN_VENV) -m pytest -n 2 --dist loadscope $(ARGS)

lint: $(DEV)
	$(IN_VENV) -m ruff format --check .
	$(IN_VENV) -m ruff check .

types: $(DEV)
	$(IN_VENV) -m mypy

notebooks: $(DEV)
	$(IN_VENV) -m pytest -n 2 --nbmake --nbmake-timeout=600 notebooks $(ARGS)

# A warning is an error (mkdocs.yml). The variable silences the theme's notice of its successor.
docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(IN_VENV) -m mkdocs build $(ARGS)

docs-links: $(IN_VENV)
	$(IN_VENV) docs/tools/external_links.py $(ARGS)

quantize-environment: $(QUANTIZE)

test-quantize: $(QUANTIZE)
	$(QUANTIZE_VENV)/bin/python -m pytest tests/merino_net/test_net_quantize.py tests/studies/test_quantization_study.py $(ARGS)

executorch-environment: $(EXECUTORCH)

test-executorch: $(EXECUTORCH)
	$(EXECUTORCH_VENV)/bin/python -m pytest tests/merino_net/test_executorch.py $(ARGS)

clean:
	rm -rf $(VENV) $(QUANTIZE_VENV) $(EXECUTORCH_VENV) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(IN_VENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) -c 'import platform; print("is " + platform.python_version())' 2>/dev/null || echo "cannot be run"); \
	  echo "error: merino needs Python 3.11 or newer, but $(PYTHON) $$found; name another, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

$(MAIN): pyproject.toml constraints.txt $(IN_VENV)
	@echo "installing merino into $(VENV), which takes about a minute the first time"
	$(INSTALL) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt $(IN_VENV)
	@echo "installing merino with all extras and its development tools into $(VENV), which takes some minutes and 5 GB the first time"
	$(INSTALL) -e '.[all]'
	@touch $(MAIN) $@

# .venv is needed for nothing but the check of the Python that made it.
$(QUANTIZE): pyproject.toml constraints-quantize.txt | $(IN_VENV)
	@echo "installing merino with GPTQ into $(QUANTIZE_VENV), which takes about a minute and 2 GB the first time"
	$(IN_VENV) -m venv --clear $(QUANTIZE_VENV)
	$(QUANTIZE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-quantize.txt \
	  -e '.[quantize]' pytest hypothesis packaging
	@touch $@

$(EXECUTORCH): pyproject.toml constraints.txt constraints-executorch.txt | $(IN_VENV)
	@echo "installing merino with ExecuTorch into $(EXECUTORCH_VENV), which takes about a minute and 2 GB the first time"
	$(IN_VENV) -m venv --clear $(EXECUTORCH_VENV)
	$(EXECUTORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-executorch.txt \
	  -e '.[net,executorch]' pytest hypothesis packaging
	@touch $@
