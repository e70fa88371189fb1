# Every target makes what it needs. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: help demo test test-again test-faults test-servers faults soak crash-matrix fuzz brokers brokers-stop check bench clean
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(VENV)/.core: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "taskbus needs Python 3.11 or newer; run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . -c constraints.txt
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' -c constraints.txt
	@touch $@

demo: $(VENV)/.core ## Cron, two workers, a chain and a second worker, live, in half a minute; BUS=URL names a bus
	$(BIN)/python -m apps.demo $(if $(BUS),'$(BUS)')

# Tests mostly wait for other processes, so more of them than there are cores run side by side, file by file.
PYTEST := $(BIN)/python -m pytest -q --numprocesses 4 --dist loadfile

test: $(VENV)/.dev ## Run every test that needs no server; with CI set, all
	$(PYTEST)

test-again: $(VENV)/.dev ## Run the tests that failed last time, one after the other
	$(BIN)/python -m pytest -q --last-failed --last-failed-no-failures none

test-servers: $(VENV)/.dev ## Run every test, also those on real brokers and databases
	TASKBUS_SERVERS=1 $(PYTEST)

faults: $(VENV)/.dev ## Every fault on every bus, and write the table of docs/guarantees.md; SEED=N repeats
	TASKBUS_SERVERS=1 $(BIN)/python -m tests.nemesis --write
	TASKBUS_SERVERS=1 TASKBUS_FAULTS=1 $(BIN)/python -m pytest -q tests/faults

soak: $(VENV)/.dev ## Mixed faults on every bus for HOURS=N, and look for leaks; SEED=N repeats
	TASKBUS_SERVERS=1 $(BIN)/python -m tests.nemesis --jobs 6 --hours $(or $(HOURS),1)

test-faults: $(VENV)/.dev ## Run the unit tests on buses that fail now and then; SEED=N, RATE=0.08
	$(PYTEST) --inject $(or $(RATE),0.08) --inject-seed $(or $(SEED),7) $(or $(TESTS),tests/unit)

fuzz: $(VENV)/.dev ## Try INPUTS (a million) broken inputs on everything that reads; SEED=N makes them again
	$(BIN)/python -m tests.fuzz --inputs $(or $(INPUTS),1000000) $(if $(SEED),--seed $(SEED))

crash-matrix: $(VENV)/.dev ## Kill every taskmaster 100 times on every bus, for most of an hour; SEED=N repeats a run
	$(BIN)/python -m tests.crash_matrix $(if $(SEED),--seed $(SEED))

brokers: $(VENV)/.dev ## Start every broker that can be had here, and print what to put into the environment
	@$(BIN)/python -m tests.servers.brokers up

brokers-stop: ## End what `make brokers` started, and nothing else
	@$(BIN)/python -m tests.servers.brokers down

check: $(VENV)/.dev ## Lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

# Other task queues have an environment of their own. What cannot be had is left out, and its row says so.
$(VENV)-peers/.made: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(VENV)-peers
	-xargs -n 1 $(VENV)-peers/bin/python -m pip install --quiet --disable-pip-version-check < $<
	@touch $@

bench: $(VENV)/.dev $(if $(PEERS),$(VENV)-peers/.made) ## Measure, beside a bare loop in the same run; PEERS=1 beside other queues, PLOTS=1 draws docs/plots
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks --footprint
	$(BIN)/python -m benchmarks --brokers --count 200000
	$(BIN)/python -m benchmarks --latency
	$(if $(PEERS),$(BIN)/python -m benchmarks --peers --peers-python $(VENV)-peers/bin/python)
	$(if $(PLOTS),$(BIN)/python -m benchmarks --plots)

clean: ## Remove the environment and caches
	rm -rf $(VENV) $(VENV)-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
