# make train | make test | make test-deploy | make soak | make bench.
# Everything lives in .venv; nothing else on the machine is touched, but that test-deploy keeps images in Docker.

PYTHON ?= python3
CONFIG ?= deploy/configs/default.toml
RUN ?= runs/$(shell echo $$(date +%Y-%m-%d_%H-%M-%S)_$$$$)
BIN := .venv/bin
# pip would take the build of torch with CUDA, 4.9 GB: where there is no NVIDIA GPU, the one for CPUs will do, 0.2 GB.
# TORCH_INDEX= leaves the choice to pip.
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi),,https://download.pytorch.org/whl/cpu)
TORCH := $(shell sed -n 's/^learner = \["\(torch[^"]*\)".*/\1/p' pyproject.toml)
install_torch = $(if $(TORCH_INDEX),-$(BIN)/pip install --quiet --no-deps --extra-index-url $(TORCH_INDEX) '$(TORCH)')

.PHONY: train test test-deploy soak bench clean

train: RUN := $(RUN)
train: .venv/installed
	$(BIN)/clew train --config $(CONFIG) --run-dir $(RUN)
	$(BIN)/clew evaluate $(RUN) --count 500 --pictures

test: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile

test-deploy: .venv/installed-test-deploy
	$(BIN)/pytest -m 'docker or ray'

soak: .venv/installed-test
	$(BIN)/pytest -m soak -s

bench: .venv/installed
	$(BIN)/clew bench

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(install_torch)
	$(BIN)/pip install --quiet --editable '.[learner,fast]'
	$(BIN)/python -m protocol.compiled
	touch $@

.venv/installed-test: pyproject.toml
	$(PYTHON) -m venv .venv
	$(install_torch)
	$(BIN)/pip install --quiet --editable '.[test]'
	$(BIN)/python -m protocol.compiled
	touch .venv/installed $@

.venv/installed-test-deploy: .venv/installed-test
	$(BIN)/pip install --quiet --editable '.[test,ray]'
	touch $@

clean:
	rm -rf .venv *.egg-info .mypy_cache .ruff_cache .pytest_cache
