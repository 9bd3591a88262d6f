# Everything sets itself up: a fresh machine needs Python >= 3.11, make, and the network for packages.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
BIN := .venv/bin
# Never fetch an interpreter; use the one at hand.
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy
# Many tests start processes, which would otherwise compile all that they import.
unexport PYTHONDONTWRITEBYTECODE
PACKAGE := pyproject.toml $(wildcard adapters/*/pyproject.toml constraints/*.txt)
ARGS ?=
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)
# Names and versions only: an address would tie the repository to one package registry.
LOCK := $(UV) pip compile pyproject.toml --quiet --universal --no-header --no-annotate --no-emit-index-url \
	--no-emit-package dynamiq-memory --no-emit-package langchain-dynamiq-memory \
	--no-emit-package llama-index-memory-dynamiq --python-version 3.11

# The dynamiq package pins older versions of what the rest uses: an environment of its own.
AGENTS := .venv-dynamiq/bin
AGENTS_TESTS := adapters/dynamiq/tests $(foreach test,postgresql::TestPostgreSQL postgresql::TestPostgreSQLAsync \
	sqlite::TestSQLiteFileAsync qdrant::TestQdrantInMemory pinecone::TestPinecone weaviate::TestWeaviate \
	weaviate::TestWeaviateAsync,tests/backends/$(subst ::,/test_conformance.py::,$(test)))
AGENTS_LOCK := $(UV) pip compile adapters/dynamiq/pyproject.toml --quiet --universal --no-header --no-annotate \
	--no-emit-index-url --no-emit-package dynamiq-memory --no-emit-package dynamiq-memory-agents --python-version 3.11

.PHONY: help demo test pytest soak agents floor lint audit format bench build lock clean

help: ## Show this help
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: .venv/.demo ## What an agent would be given: a stored conversation, asked from new processes
	@$(BIN)/python cookbook/demo.py $(ARGS)

# What `agents` prints comes in one piece, at its end; old versions of make mix it with the rest.
test: .venv/.dev .venv-dynamiq/.ready .venv/.browser ## Run all tests
	@$(MAKE) --no-print-directory --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync) agents pytest

# With the plus, make shows its output at once.
pytest:
	+$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadgroup $(ARGS)

soak: .venv/.dev .venv-dynamiq/.ready ## Check every promise for HOURS=2, by kills, faults and 10,000 examples of each property
	$(BIN)/python -m tests.trust.soak --hours $(or $(HOURS),2) --examples $(or $(EXAMPLES),10000) \
		--agents $(AGENTS)/python $(ARGS)

# In one process: importing dynamiq takes several seconds of CPU time.
agents: .venv-dynamiq/.ready ## Run the tests with the dynamiq package
	$(AGENTS)/python -m pytest -p no:cacheprovider $(AGENTS_TESTS)

floor: .venv-floor/.ready ## Run the tests with the lowest versions that are allowed
	.venv-floor/bin/python -m pytest --numprocesses=auto -W "ignore:The 'validate_default' attribute" \
		$(addprefix tests/,core conversation integrations ranking backends/test_urls.py) \
		adapters/langchain/tests adapters/llama-index/tests/test_any_version.py \
		--ignore=adapters/langchain/tests/test_clients.py $(ARGS)

lint: .venv/.dev ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@# One at a time, since all three have modules of the same names.
	for adapter in dynamiq langchain llama-index; do $(BIN)/mypy adapters/$$adapter/tests || exit 1; done

# Strict: what the database does not know is an error, and must not pass for safe.
audit: .venv/.dev ## Look up known vulnerabilities of the pinned packages at pypi.org, where it can be reached
	@$(BIN)/python -c 'import json, urllib.request as r; \
		json.load(r.urlopen("https://pypi.org/pypi/pip/25.0/json", timeout=20))["vulnerabilities"]' 2>/dev/null \
		|| { echo "skipped: the database at pypi.org cannot be reached"; exit 0; } && \
	for file in constraints/dev.txt constraints/dynamiq.txt; do \
		$(UV) tool run pip-audit --strict --no-deps --disable-pip --requirement $$file || exit 1; \
	done

format: .venv/.dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv-bench/.ready .venv/.dev ## Measure speed (ARGS=--quick: in minutes); LOCOMO=file also measures retrieval
	.venv-bench/bin/python -m benchmarks.speed $(ARGS)
	$(if $(LOCOMO),$(BIN)/python benchmarks/retrieval.py $(LOCOMO),@echo "retrieval: make bench LOCOMO=locomo10.json")

build: .venv/.dev ## Build the distributions into dist/
	$(UV) build --python $(BIN)/python --all-packages
	$(UV) build --python $(BIN)/python --out-dir dist adapters/dynamiq

lock: .venv/.dev ## Write the newest and the lowest allowed versions into constraints/
	$(LOCK) --upgrade --group dev --output-file constraints/dev.txt
	$(LOCK) --upgrade --group bench --output-file constraints/bench.txt
	$(LOCK) --upgrade --resolution lowest-direct --group floor --output-file constraints/floor.txt
	$(AGENTS_LOCK) --upgrade --group adapters/dynamiq/pyproject.toml:dev --output-file constraints/dynamiq.txt

clean: ## Remove the environment and caches
	rm -rf .venv .venv-bench .venv-floor .venv-dynamiq .tools .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

.tools/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1): set PYTHON=…" >&2; exit 1; }
	@# A Python without ensurepip has no venv with pip; its own pip can still install into a folder.
	$(PYTHON) -m venv .tools && .tools/bin/python -m pip install --quiet uv \
		|| { rm -rf .tools; $(PYTHON) -m pip install --quiet --target .tools uv; }

.venv/bin/python: | $(filter .tools/bin/uv,$(UV))
	$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv

.venv/.demo: $(PACKAGE) | .venv/bin/python
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints/dev.txt --editable . --group demo
	@touch $@

.venv/.dev: $(PACKAGE) | .venv/bin/python
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints/dev.txt \
		--editable . --group dev
	@touch $@ .venv/.demo

# For the tests of the viewer, which are skipped where there is no browser, unless DYNAMIQ_MEMORY_REQUIRE_SERVERS=1.
.venv/.browser: | .venv/bin/python
	@if ! { command -v chromium && command -v chromedriver; } >/dev/null \
		&& [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; } >/dev/null \
			|| echo "no browser: the tests of the viewer are skipped" >&2; \
	fi
	@touch $@

# The peers pin versions of what the tests use.
.venv-bench/.ready: $(PACKAGE) | $(filter .tools/bin/uv,$(UV))
	$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv-bench
	$(UV) pip install --quiet --compile-bytecode --python .venv-bench/bin/python --constraint constraints/bench.txt \
		--editable . --group bench
	@touch $@

.venv-floor/.ready: $(PACKAGE) | $(filter .tools/bin/uv,$(UV))
	$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv-floor
	$(UV) pip install --quiet --python .venv-floor/bin/python --constraint constraints/floor.txt \
		--editable . --group floor
	@touch $@

.venv-dynamiq/.ready: $(PACKAGE) | $(filter .tools/bin/uv,$(UV))
	$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv-dynamiq
	$(UV) pip install --quiet --python $(AGENTS)/python --constraint constraints/dynamiq.txt \
		--editable . --editable adapters/dynamiq --group adapters/dynamiq/pyproject.toml:dev
	@touch $@
