# `make` lists the targets. Everything runs in a virtual environment of its own, .venv, which the first target that needs it builds.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# What the demo needs is much less; who has all has that, too.
DEMO := $(VENV)/.demo
# Engines that do not go with the rest, and large ones: an environment of their own.
ENGINES_STAMP := $(VENV)-engines/.installed
# Four, though two cores suffice: tests wait often. Whole files, for what they share, in our order (tests/conftest.py).
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo notebooks test quick lint fmt types imports crash crash-cluster sim bugs differ catalogs-all postgres-all engines-all rck fuzz kernels clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z%-]+:.*## / {printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## set up .venv with StreamLake and all that tests and demo need

# The kernels are compiled at install: another version of their source makes it anew.
SOURCES := pyproject.toml $(shell find streamlake -name '*.pyx' -o -name '*.pxd')

define install_extra
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "StreamLake needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Say: make PYTHON=/path/to/python3.11 …"; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	PYTHONWARNINGS=ignore $(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(2) --editable '.[$(1)]'
	@touch $@
endef

$(STAMP): $(SOURCES)
	$(call install_extra,dev)

$(DEMO): $(SOURCES)
	$(call install_extra,demo,--no-compile) # bytecode only of what runs, when it first does

$(ENGINES_STAMP): $(SOURCES)
	$(call install_extra,engines)

demo: $(if $(wildcard $(STAMP)),$(STAMP),$(DEMO)) ## five real tables through a Kafka client into Iceberg, and SQL on them, in about a minute
	$(BIN)/streamlake demo

notebooks: $(STAMP) ## run notebooks/ against servers of their own, and keep what they print and plot
	$(BIN)/python tools/notebooks.py

# With bytecode: each of a thousand processes that tests start would else compile all it imports, a third of a second.
test: $(STAMP) lint types imports ## everything that CI checks; a test that passes only when run once more, alone, is told as flaky
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python tools/suite.py -q $(PARALLEL) --durations=20

quick: $(STAMP) ## the tests of single rooms, in less than four minutes: none that is slow or runs whole servers and commands
	$(BIN)/python -m pytest -q $(PARALLEL) -m "not slow and not whole"

lint: $(STAMP) ## style, banned APIs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(STAMP) ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

imports: $(STAMP) ## imports only go down
	$(BIN)/lint-imports --no-cache

crash: $(STAMP) ## kill -9 of server and worker again and again under load, on both WALs (ROUNDS=10)
	$(BIN)/python tests/support/crash.py --wal file --rounds $(or $(ROUNDS),10)
	$(BIN)/python tests/support/crash.py --wal object --rounds $(or $(ROUNDS),10)
	$(BIN)/python tests/support/crash.py --demo

crash-cluster: $(STAMP) ## three brokers, PostgreSQL and an object store under load: kills, outages, partitions, restarts, moves; some 30 s a round (ROUNDS=8, ONLY=kill,move)
	$(BIN)/python tests/support/crash_cluster.py --rounds $(or $(ROUNDS),8) $(if $(ONLY),--only $(ONLY))

sim: $(STAMP) ## simulated clusters with faults, one life per seed, on all cores (SEEDS=100 FIRST=1, SEVERAL=1 for those of several brokers, or SEED=n)
	$(BIN)/python tests/simulation/run.py $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),100) --first $(or $(FIRST),1)) $(if $(SEVERAL),--several) $(if $(BUG),--bug $(BUG)) $(if $(TRACE),--trace $(TRACE))

bugs: $(STAMP) ## plant known bugs one by one, and count the lives until the simulation finds each (at most 200)
	$(BIN)/python tests/simulation/run.py --bugs

differ: $(STAMP) ## the same requests to Apache Kafka (from its jars: Java 17, Maven) and to StreamLake, answers compared (ONLY=name)
	$(BIN)/python tests/differ/run.py $(if $(ONLY),--only $(ONLY))

catalogs-all: $(STAMP) ## the suite of tests/catalogs for every kind of catalog, the Java servers too (JDK 17, Java 21 for Nessie, Maven), and its table (ONLY=hive,glue)
	CATALOGS=$(or $(ONLY),all) CATALOG_TABLE=$(if $(ONLY),,docs/catalog-behaviour.md) $(BIN)/python -m pytest -q tests/catalogs

postgres-all: $(STAMP) ## the tests of the metadata store on PostgreSQL 15 to 18 (Maven) (ONLY=17)
	for version in $(or $(ONLY),15 16 17 18); do \
	  echo "PostgreSQL $$version"; POSTGRES=$$version $(BIN)/python -m pytest -q -k postgres tests/cluster tests/faults/test_slots.py tests/iceberg_rest/test_sql_commit.py || exit 1; \
	done

engines-all: $(ENGINES_STAMP) ## every engine on tables of a real server, Spark and Trino too (Java 17 and 24, Maven), and the table of docs/guides/engines.md (ONLY=spark,trino)
	ENGINES=$(or $(ONLY),all) $(VENV)-engines/bin/python -m pytest -q tests/engines
	$(if $(ONLY),,$(VENV)-engines/bin/python tests/engines/page.py)

rck: $(STAMP) ## Apache Iceberg's REST Compatibility Kit against our REST catalog (Java 17, Maven), about a minute (ONLY=test)
	$(BIN)/python tests/rck/run.py $(if $(ONLY),--only $(ONLY))

fuzz: $(STAMP) ## hostile bytes for every parser, on all cores (SECONDS=300)
	$(BIN)/python tests/fuzz/run.py --seconds $(or $(SECONDS),300)

bench-%: $(STAMP) ## one benchmark: produce compression latency fetch table commits e2e partitions store_requests moves failover transactions; JSON and PNG in bench/results
	$(BIN)/python bench/$*.py $(ARGS)

kernels: $(STAMP) ## how much faster the compiled kernels are than their plain twins, in one run
	$(BIN)/python bench/kernels.py

clean: ## remove the virtual environment, caches and the demo's data
	rm -rf $(VENV) $(VENV)-engines .demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find streamlake -name '*.so' -delete -o -name '*_kernel.c' -delete -o -name 'kernel.c' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
