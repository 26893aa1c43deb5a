# make demo | test | check | gpu | fix | docs | smoke | fuzz | fuzz-coverage | kills | bench | audit | clean
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test check gpu fix docs smoke fuzz fuzz-coverage kills bench audit clean
.DEFAULT_GOAL := check

# The stamp follows what is to be installed, so a changed dependency installs again.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/.installed
	$(BIN)/rectilinear scan demo --out demo-report --force

test: .venv/.installed
	$(PYTEST)

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/audit.py
	$(PYTEST)

# What needs a GPU; the other tests see none. One process: the tests are short and share it.
gpu: .venv/.installed
	RECTILINEAR_GPU=cuda $(BIN)/python -m pytest tests/gpu

fix: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python tools/notebook.py

# The site, into site/; a broken link, anchor or reference fails it.
docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

# Wheel and sdist, installed alone into a new environment, and every command tried there.
smoke: .venv/.installed
	$(BIN)/python tools/smoke.py

# Nearly three hundred thousand files that are nearly right, drawn anew each time: an hour.
fuzz: .venv/.installed
	FUZZ_EXAMPLES=4600 $(BIN)/python -m pytest tests/test_fuzz.py tests/test_fuzz_models.py

# Twenty minutes of files that are chosen by what they reach in the code; needs atheris, and says so without it.
fuzz-coverage: .venv/.installed
	$(BIN)/python tools/fuzz_coverage.py

# Real commands, killed at random moments and taken up again: the same result? Half an hour; KILLS=50 takes hours.
KILLS ?= 3
kills: .venv/.installed
	$(BIN)/python tools/kills.py --kills $(KILLS)

# What a scan, perplexity and a start cost over a bare forward pass, against what they cost before: minutes.
bench: .venv/.installed
	$(BIN)/python benchmarks/performance.py --short --tokens 4096 --check

# Known holes in what is installed, where PyPI's database of them can be asked.
audit: .venv/.installed
	$(BIN)/python tools/audit.py

clean:
	rm -rf .venv demo-report dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .fuzz
