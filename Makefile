# make train | make test | make test-deploy | make soak | make bench | make clean.
# Everything lives in .venv, and runs in runs; nothing else on the machine is touched, except that test-deploy keeps
# images in Docker.
# make test PYTHON=python3.12 takes another Python, in .venv-python3.12. Versions are those of constraints.txt.

PYTHON ?= python3
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
CONFIG ?= deploy/configs/default.toml
RUN ?= runs/$(shell echo $$(date +%Y-%m-%d_%H-%M-%S)_$$$$)
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt
# pip would take the build of torch with CUDA, 4.9 GB: where there is no NVIDIA GPU, the one for CPUs will do, 0.2 GB.
# TORCH_INDEX= leaves the choice to pip.
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi),,https://download.pytorch.org/whl/cpu)
TORCH := $(shell sed -n 's/^learner = \["\(torch[^"]*\)".*/\1/p' pyproject.toml)
install_torch = $(if $(TORCH_INDEX),-$(PIP) --no-deps --extra-index-url $(TORCH_INDEX) '$(TORCH)')

.PHONY: train test test-deploy soak bench clean

train: RUN := $(RUN)
train: $(VENV)/installed
	$(BIN)/clew train --config $(CONFIG) --run-dir $(RUN)
	$(BIN)/clew evaluate $(RUN) --count 500 --pictures

test: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test-deploy: $(VENV)/installed-test-deploy
	$(BIN)/pytest -m 'docker or ray or sdk or browser'

soak: $(VENV)/installed-test
	$(BIN)/pytest -m soak -s

bench: $(VENV)/installed
	$(BIN)/clew bench

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(install_torch)
	$(PIP) --editable '.[learner,fast]'
	$(BIN)/python -m protocol.compiled
	touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(install_torch)
	$(PIP) --editable '.[test]'
	$(BIN)/python -m protocol.compiled
	touch $(VENV)/installed $@

$(VENV)/installed-test-deploy: $(VENV)/installed-test
	$(PIP) --editable '.[test-deploy]'
	touch $@

clean:
	rm -rf .venv .venv-* *.egg-info .mypy_cache .ruff_cache .pytest_cache
