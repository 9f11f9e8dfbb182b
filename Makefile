# What one does with this checkout; each is a thin call of Python.
PYTHON ?= python3
MINUTES ?= 10

.PHONY: test check bench bench-quick peers torture crash-pairs mutants docs

test:  ## the suite
	$(PYTHON) -m pytest

check:  ## lint and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pyright

bench:  ## every line of the budget; some take minutes
	$(PYTHON) -m benchmarks

bench-quick:  ## less of everything; fails only beyond twice a budget
	$(PYTHON) -m benchmarks --quick

peers:  ## the same workloads on other engines, in environments of their own
	$(PYTHON) -m benchmarks.peers install
	$(PYTHON) -m benchmarks.peers run --json benchmarks/peers/results.json

torture:  ## every attack in turn, with new seeds
	$(PYTHON) -m torture --minutes $(MINUTES)

crash-pairs:  ## two deaths in a row at every pair of writes
	$(PYTHON) -m torture.crash_pairs

docs:  ## the site of the documentation, into docs/_build/html
	$(PYTHON) -m docs

mutants:  ## whether the tests notice a broken engine
	$(PYTHON) -m torture.mutants
