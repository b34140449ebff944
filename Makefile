# The way into this project: `make demo` shows it, `make test` tests it, `make check` is what CI runs.
#
# PYTHON names the interpreter that .venv is made from; ARGS is handed on to the command behind demo, test, lab,
# bench, faults, fuzz, lock and deploy, for example: make demo ARGS="--json --memory 256MiB", make test ARGS="tests/vmm -x".

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

# A test starts some thousand programs: what they import is compiled once, whatever the surroundings say.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lab check format lint types architecture generated model deploy deploy-down deploy-test bench faults fuzz sbom audit proto lock clean set-up set-up-dev

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: set-up  ## migrate a machine between two hosts on loopback, with live progress
	@$(BIN)/viaduct demo $(ARGS)

# Many tests wait for processes: one worker more than there are processors. A file's tests share its sites; in which
# order files begin, tests/conftest.py says.
test:  ## install what the tests need and run the whole suite
	@$(PYTHON) tools/set_up.py dev test
	@$(BIN)/python -m pytest -n $$(( $$(nproc) + 1 )) --dist loadfile --no-loadscope-reorder $(ARGS)

lab: set-up  ## what the documents say about dirty pages behind a vIOMMU, all of it, as one table
	@$(BIN)/viaduct lab matrix $(ARGS)

# Beside the suite only what is short: its tests wait for processes, and have deadlines. The matrix begins with the
# deployment's images, and takes a minute as they do; its end may come beside the first tests there. To wait for it would
# need images that outlive the target that makes them, and an engine of the tests' own does not.
check:  ## everything that CI checks
	@$(PYTHON) tools/set_up.py dev test
	@$(PYTHON) tools/side_by_side.py $(MAKE) "test" "format lint types architecture generated model" -- "deploy-test" "lab"

format: set-up-dev  ## is the code formatted? (ruff format mends it)
	$(BIN)/ruff format --check .

lint: set-up-dev  ## ruff's rules
	$(BIN)/ruff check .

types: set-up-dev  ## mypy --strict over programs, tests and tools
	$(BIN)/mypy

architecture: set-up-dev  ## who may import whom
	$(BIN)/lint-imports

generated: set-up-dev  ## is vm_migration/api what proto/ generates, and the tables of docs/ what the code says?
	$(BIN)/python tools/generate_api.py --check
	$(BIN)/python tools/generate_security.py --check
	$(BIN)/python tools/generate_metrics.py --check

model:  ## is the handover right under every fault? (ARGS=--long searches further)
	@$(PYTHON) tools/set_up.py dev model
	@$(BIN)/python -m tools.check_model $(ARGS)

deploy:  ## a site in containers: three hosts, two orchestrators, a broker (docs/deployment.md)
	@$(PYTHON) tools/set_up.py run $$(docker info > /dev/null 2>&1 || echo deploy)
	@$(BIN)/python -m tools.deploy up $(ARGS)

deploy-down:  ## take it down; ARGS=--volumes forgets its certificates and journals too
	@$(PYTHON) tools/set_up.py run
	@$(BIN)/python -m tools.deploy down $(ARGS)

# Images take longer than a test may: they are made before the first.
deploy-test:  ## bring that site up on a container engine, one of its own where none runs; drive and hurt it
	@$(PYTHON) tools/set_up.py dev $$(docker info > /dev/null 2>&1 || echo deploy)
	@$(BIN)/python -m pytest -n0 --timeout 600 -o faulthandler_timeout=0 tests/deployment $(ARGS)

bench:  ## the measured comparisons, as a table and JSON
	@$(PYTHON) tools/set_up.py dev bench
	@$(BIN)/python -m benchmarks $(ARGS)

faults:  ## kill, freeze and cut off real processes and simulated ones; writes the table of docs/reliability.md
	@$(PYTHON) tools/set_up.py dev test
	@$(BIN)/python -m tests.faults $(ARGS)

fuzz:  ## search for bytes that a parser cannot bear (ARGS="--seconds 600 bulk_frame" searches one for longer)
	@$(PYTHON) tools/set_up.py tools
	@$(BIN)/python -m tests.fuzz $(ARGS)

sbom:  ## write what is shipped as CycloneDX into dist/, and its licences into docs/licences.md
	@$(PYTHON) tools/set_up.py tools
	@$(BIN)/python -m tools.shipped
	@$(BIN)/python -m tools.sbom

audit:  ## ask the package registry for advisories on every locked package; fails too where it does not answer
	@$(PYTHON) tools/set_up.py tools
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
		-r requirements.lock -r requirements-dev.lock -r requirements-tools.lock -r tests/asyncio-mqtt.lock $(ARGS)

proto: set-up-dev  ## generate vm_migration/api from proto/, and the tables of docs/
	$(BIN)/python tools/generate_api.py
	$(BIN)/python tools/generate_security.py
	$(BIN)/python tools/generate_metrics.py

lock: set-up-dev  ## write the lock files from pyproject.toml (ARGS=--upgrade takes newer versions)
	tools/lock.sh $(ARGS)

clean:  ## remove .venv and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

set-up:
	@$(PYTHON) tools/set_up.py run

set-up-dev:
	@$(PYTHON) tools/set_up.py dev
