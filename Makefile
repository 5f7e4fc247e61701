# Every target works as the first command on a fresh checkout.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: simulate-ci crash-everywhere strategies-table bench bench-quick docs simulate simulate-mutants setup run paper test check contract-report bench-exchange twin-clients crash-test guarantee cancel-everywhere interleavings bench-journal fmt exchange lock clean bench-breadth bench-scheduler bench-memory

setup: $(STAMP)

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("mm needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	@if command -v uv >/dev/null 2>&1; then \
		uv venv -q --allow-existing --python $(PYTHON) $(VENV) && \
		uv pip install -q --python $(BIN)/python --require-hashes -r requirements/dev.txt && \
		uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt && \
		$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@touch $@

run: $(STAMP)
	@$(BIN)/mm run

paper: $(STAMP)
	@$(BIN)/mm run --paper

exchange: $(STAMP)
	@$(BIN)/mm exchange

test: $(STAMP)
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile

twin-clients: $(STAMP)  # published clients, each in an environment of its own, trade a day at the embedded exchange
	@$(BIN)/python tests/twin/run.py $(CLIENTS)

contract-report: $(STAMP)  # every operation and field of the REST contract: what the embedded exchange produced
	@$(BIN)/python -m pytest -q -s tests/exchange/embedded/server/test_contract_coverage.py

crash-test: $(STAMP)  # kill -9 in ROUNDS lives on one data folder; SEED repeats a run
	@$(BIN)/python tests/support/crash_rounds.py --rounds $(or $(ROUNDS),30) $(if $(SEED),--seed $(SEED))

guarantee: $(STAMP)  # nothing outlives the bot: every row, and SIGKILL and freeze ROUNDS times with p50 and p99
	@MM_GUARANTEE_ROUNDS=$(or $(ROUNDS),30) MM_GUARANTEE_LATE_MS=60000 $(BIN)/python -m pytest -q -s tests/guarantee

cancel-everywhere: $(STAMP)  # a short life in memory, cancelled before every one of its steps
	@MM_CANCEL_STRIDE=1 $(BIN)/python -m pytest -q tests/guarantee/test_cancelled_everywhere.py

interleavings: $(STAMP)  # one order, every order in which the world can answer it, to depth 6
	@$(BIN)/python tests/support/every_interleaving.py $(if $(DEPTH),--depth $(DEPTH))

bench-journal: $(STAMP)  # what the decision journal costs a decision
	@$(BIN)/python bench/decision_journal.py

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fmt: $(STAMP)
	$(BIN)/ruff check --fix -q . || true
	$(BIN)/ruff format -q .

lock:  # needs uv; writes the pins with their hashes
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements/runtime.in -o requirements/runtime.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header -c requirements/runtime.txt requirements/dev.in -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements/docs.in -o requirements/docs.txt

docs: build/.docs-venv/.installed  # the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 build/.docs-venv/bin/mkdocs build -q --strict -f config/mkdocs.yml
	@echo "build/site/index.html"

build/.docs-venv/.installed: requirements/docs.txt  # apart from .venv: nothing that runs the bot depends on it
	@$(PYTHON) -m venv build/.docs-venv
	@build/.docs-venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch $@

clean:
	rm -rf $(VENV) build

strategies-table: $(STAMP)  # strategies on the same 200 simulated games (half an hour on two idle cores; goes on where it was)
	@nice -n 10 $(BIN)/python -m mm strategies-table

bench-exchange: $(STAMP)  # what the embedded exchange carries, and what bounds it
	@$(BIN)/python bench/exchange.py

bench: $(STAMP)  # every claim of speed side by side, three rounds (ten minutes at most); writes bench/latest.json
	@$(BIN)/python bench/run.py

bench-quick: $(STAMP)  # the same in one short round (a minute at most)
	@$(BIN)/python bench/run.py --quick

bench-idle: $(STAMP)  # CPU and RSS of the bot over ten minutes, 16 games at speed 1
	@$(BIN)/python bench/idle.py

simulate: $(STAMP)  # 1,000 short seeds, 50 of them twice, and 50 full ones
	@$(BIN)/mm simulate --seeds 1-1000 --twice 50
	@$(BIN)/mm simulate --seeds 1-50 --full

simulate-ci: $(STAMP)  # the seeds that once found something, 20 short ones twice, and one seed in two processes
	@$(BIN)/mm simulate --kept
	@$(BIN)/mm simulate --seeds 1-20 --twice 20
	@$(BIN)/python -m pytest -q tests/simulation -k canary

crash-everywhere: $(STAMP)  # three short lives, killed at every step and every commit (about twelve minutes on two idle cores)
	@for seed in $(or $(SEEDS),4 21 23); do $(BIN)/mm simulate --crash-everywhere $$seed || exit 1; done

simulate-mutants: $(STAMP)  # known bugs, planted one by one: each must be caught
	@$(BIN)/python -m mm.simulation.mutants

bench-ledger: $(STAMP)  # RSS of the books over a million fills (about ten minutes)
	@$(BIN)/python bench/million_fills.py

bench-breadth: $(STAMP)  # CPU a message, lag and memory from 16 to 10,000 watched markets (two minutes)
	@$(BIN)/python bench/breadth.py 2>/dev/null

bench-scheduler: $(STAMP)  # value-weighted staleness against first come, first served, on the same tapes
	@$(BIN)/python bench/scheduler.py

bench-memory: $(STAMP)  # RSS over eight hours of virtual time, 64 markets, five million messages (about 15 minutes)
	@$(BIN)/python bench/memory.py

MM_RECORDINGS ?= ../shared/data
bench-backtest: $(STAMP)  # the back-test's speed and what bounds it, how true its queue is, and hftbacktest and nautilus-trader on the same events
	@$(BIN)/python bench/backtest.py $(wildcard $(MM_RECORDINGS)/ws_btc15m_fulldepth/*.gz)
	@$(BIN)/python bench/compared.py $(wildcard $(MM_RECORDINGS)/ws_btc15m_fulldepth/*.gz)
