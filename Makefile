# What one does with this checkout; each is a thin call of Python.
PYTHON ?= python
MINUTES ?= 10

.PHONY: test check torture crash-pairs mutants

test:  ## the suite
	$(PYTHON) -m pytest

check:  ## lint and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pyright

torture:  ## every attack in turn, with new seeds
	$(PYTHON) -m torture --minutes $(MINUTES)

crash-pairs:  ## two deaths in a row at every pair of writes
	$(PYTHON) -m torture.crash_pairs

mutants:  ## whether the tests notice a broken engine
	$(PYTHON) -m torture.mutants
