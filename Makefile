# One-word commands; CI calls the same.
PYTHON ?= python3
BIN := .venv/bin
COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command "make lock"

.PHONY: setup demo test e2e chaos bench check format lock clean

setup: .venv/installed  ## make .venv from the lock

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	@# The lock is whole: with nothing to resolve, pip cannot look for other versions of what it pins.
	@echo "installing what requirements.lock names: some two minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## the whole way on this machine, with nothing paid
	$(BIN)/variations demo

test: setup  ## all tests but those of make e2e
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --ignore=tests/e2e --ignore=tests/flows/deployments

e2e: setup  ## deployments, workers and the form on real parts: Prefect on PostgreSQL, a browser; some fifteen minutes
	E2E_DATABASE=postgresql $(BIN)/python -m pytest -q tests/flows/deployments
	E2E_IMAGES=1 $(BIN)/python -m pytest -q tests/deployments/test_images.py tests/deployments/test_worker_types.py
	E2E_DATABASE=postgresql E2E_PICTURES=$(CURDIR)/test-output $(BIN)/python -m pytest -q tests/e2e

chaos: setup  ## the proof: real processes killed, doubled and cut off, and 10,000 simulated runs; some 45 minutes
	CHAOS_CEPH=1 $(BIN)/python -m pytest -q tests/chaos/test_ceph.py
	$(BIN)/python -m tests.chaos --s3 ceph

bench: setup  ## every performance claim, side by side with what one would do otherwise; some eleven minutes
	$(BIN)/python -m benches

check: setup  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## resolve the dependencies anew
	$(COMPILE) --extra dev --output-file requirements.lock
	$(COMPILE) --extra build --constraints requirements.lock --output-file requirements-runtime.lock

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-output bench-output test-output
