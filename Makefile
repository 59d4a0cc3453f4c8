# Two commands, each alone on a fresh machine with Python 3.11 and make: `make run`, `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready

.PHONY: run test check lint notebook bench clean

run: $(READY)
	$(BIN)/mledgeops run notebooks/apps/wind_farm

# Ruff and mypy are tests too (tests/test_style.py); `make lint` is the quick way to them.
test check: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/mledgeops bench

notebook: $(READY)
	home=$$(mktemp -d) && cd notebooks && MLEDGEOPS_HOME=$$home ../$(BIN)/python execute.py 01-quickstart.ipynb; rm -rf $$home

# torch first and by plain pip: its CPU build. Then the lock, exactly, without resolving anything again.
$(READY): requirements.lock setup.cfg
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps "$$(grep '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

clean:
	rm -rf .venv .mledgeops build *.egg-info
