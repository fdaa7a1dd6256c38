# `make demo` and `make test` make their own environment; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: help env demo test lint types wheel clean

help:
	@echo "make demo   install, then adapt on bundled data and write a report (about 2 minutes)"
	@echo "make test   install, then run the whole test suite"
	@echo "make lint   ruff;  make types  mypy;  make wheel  build and smoke-test the wheel"

env: $(VENV)/.ready
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: env
	$(BIN)/acclimate demo

test: env
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

wheel: env
	rm -rf dist .smoke
	$(BIN)/python -m build --wheel --quiet
	$(PYTHON) -m venv .smoke
	.smoke/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	cd .smoke && bin/acclimate --version && bin/acclimate doctor && bin/acclimate methods && \
		bin/acclimate demo smoke --out demo && test -s demo/report.html
	rm -rf .smoke

clean:
	rm -rf $(VENV) .smoke dist
