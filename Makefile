# The two commands a newcomer needs: `make demo` and `make test`. All else is for developers.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test check clients flower models models-small results dist clean

# Environment, models, data, bench, report: ends by printing the front, the certificate and a path.
# With DEMO=--tiny it is a quick look; `cosilo demo --help` says what else there is.
demo: $(VENV)/.user
	$(BIN)/cosilo demo $(DEMO)

# Environment and the whole test suite. Tests that need models or data sets skip without them. They
# start hundreds of processes: each would compile all of Cosilo again where Python may not write
# what it compiled. Slow tests stand side by side: whoever is done first takes over from the other.
test: $(VENV)/.dev
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -n 2 --dist worksteal -q

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The recipes of docs/clients, each with its client's release in an environment of its own (.clients).
clients: $(VENV)/.dev
	$(BIN)/python benchmarks/clients/run.py --keep

# Federations over Flower, which lives in an environment of its own (.flower): it wants other releases
# of packages that the tests need, too. What it has not, it finds in the tests' environment.
flower: $(VENV)/.dev .flower/.ready
	COSILO_FLOWER_PYTHON=$(abspath .flower/bin/python) $(BIN)/pytest -q \
		tests/integration/test_flower.py tests/integration/test_flower_simulation.py

.flower/.ready: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m venv .flower
	.flower/bin/pip install --disable-pip-version-check 'flwr==1.41.0'
	cd .flower/lib/python*/site-packages && $(abspath $(BIN)/python) -c \
		"import site; print(site.getsitepackages()[0])" > zz_cosilo.pth
	@touch $@

models: $(VENV)/.user
	$(BIN)/cosilo models pull --all

# What the tests use: the sentence encoder, the PII model and the 135M language model (about 0.2 GB).
models-small: $(VENV)/.user
	$(BIN)/cosilo models pull minilm-int8 en-core-web-md smollm2-135m-instruct

# Every number of docs/results.md, from ../shared/data. Takes hours; each script resumes.
results: $(VENV)/.dev
	PYTHON=$(BIN)/python benchmarks/run_all.sh

# A wheel in dist/, which installs anywhere: pip install 'dist/cosilo-….whl[bench]'
dist: | $(BIN)/pip
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

# What the demo loads, and no more: no torch, and nothing that only developers need.
$(VENV)/.user: pyproject.toml | $(BIN)/pip
	@echo "Installing Cosilo and what its demo loads into $(VENV): 200 MB to fetch, 800 MB on the disk. pip says the rest."
	$(BIN)/pip install --disable-pip-version-check -e '.[local,pii]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/pip
	@echo "Installing what the tests need into $(VENV), torch too: up to 2.1 GB on the disk, more where torch comes with CUDA. pip says the rest."
	$(BIN)/pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

$(BIN)/pip:
	@echo "Making an environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .flower .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
