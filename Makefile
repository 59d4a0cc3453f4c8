# Two commands, each alone on a fresh machine with Python 3.11 and make: `make run`, `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready

.PHONY: run test check lint notebook bench clean

run: $(READY)
	$(BIN)/mledgeops run notebooks/apps/wind_farm

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

bench: $(READY)
	$(BIN)/mledgeops bench

notebook: $(READY)
	$(BIN)/python -m ipykernel install --sys-prefix --name mledgeops > /dev/null
	$(BIN)/jupyter execute --inplace notebooks/01-quickstart.ipynb

# torch first and by plain pip: its CPU build. Then the lock, exactly, without resolving anything again.
$(READY): requirements.lock setup.cfg
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps "$$(grep '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

clean:
	rm -rf .venv .mledgeops build *.egg-info
