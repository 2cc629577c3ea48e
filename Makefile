# The two commands a newcomer needs: `make demo` and `make test`. All else is for developers.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test check models models-small results clean

# Environment, models, data, bench, report: ends by printing the front, the certificate and a path.
demo: $(VENV)/.installed
	$(BIN)/cosilo demo

# Environment and the whole test suite. Tests that need models or data sets skip without them.
test: $(VENV)/.installed
	$(BIN)/pytest -n 2 -q

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

models: $(VENV)/.installed
	$(BIN)/cosilo models pull --all

# What the tests use: the sentence encoder, the PII model and the 135M language model (about 0.3 GB).
models-small: $(VENV)/.installed
	$(BIN)/cosilo models pull minilm-int8 en-core-web-md smollm2-135m-instruct

# Every number of docs/results.md, from ../shared/data. Takes hours; each script resumes.
results: $(VENV)/.installed
	PYTHON=$(BIN)/python benchmarks/run_all.sh

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
