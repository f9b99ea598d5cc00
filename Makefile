# On a fresh machine with Python >= 3.11, git and make:
#   make run    own virtual environment, install, the OpenAI study and its summary
#   make test   the test suite
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
# More options of pytest (`make bench OPTIONS="-m long"`), and how many random studies `make parity` runs.
OPTIONS ?=
STUDIES ?= 200
BIN := $(VENV)/bin

.PHONY: run test fast parity lint types wheels bench lock clean

run: $(VENV)/.run
	$(BIN)/offtake run portfolio=openai study.paths=1e5 executor.workers=$(WORKERS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) $(OPTIONS)

fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

# JAX on every study that it is held to numpy on: a quarter of an hour on two cores.
parity: $(VENV)/.dev
	OFFTAKE_PARITY_STUDIES=$(STUDIES) $(BIN)/python -m pytest -n $(WORKERS) -m "" \
	  tests/test_parity.py tests/test_fast.py tests/test_tally_jax.py

lint: $(VENV)/.dev
	$(BIN)/ruff check engine kernels tests bench
	$(BIN)/ruff format --check engine kernels tests bench

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

# The wheel is built twice: from the checkout, and through the sdist; one can fail while the other passes.
wheels: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation --wheel --outdir dist/direct
	$(BIN)/python -m build --no-isolation --outdir dist/through-sdist

bench: $(VENV)/.dev
	$(BIN)/python -m pytest bench --benchmark-only -p no:xdist $(OPTIONS)

lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-annotate --custom-compile-command "make lock" -q -o requirements/run.txt
	for extra in cuda12 cuda13; do uv pip compile pyproject.toml --extra $$extra --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
	  --custom-compile-command "make lock" -q -o requirements/$$extra.txt || exit 1; done
	uv pip compile pyproject.toml requirements/build.in --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
	  --custom-compile-command "make lock" -q -o requirements/dev.txt

clean:
	rm -rf $(VENV) dist

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "offtake needs Python 3.11 or later; try: make PYTHON=python3.12 run" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.run: $(VENV)/.python requirements/run.txt pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@
