# make demo   set up and run the whole loop on real images       make test   set up and run the tests
# make lint   style, types, layers                               make bench  quick forms of all benchmarks
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test lint format bench clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml scripts/preflight.py
	@$(PYTHON) scripts/preflight.py --python "$(PYTHON)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@mkdir -p .links && ln -sfn .. .links/hadas
	@touch $(READY)

demo: $(READY)
	$(BIN)/hadas demo

test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=10

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.links $(BIN)/mypy -p hadas
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	@for script in benchmarks/[a-z]*.py benchmarks/paper/run.py; do echo "== $$script"; $(BIN)/python $$script --quick --json || exit 1; done

clean:
	rm -rf .venv .links build *.egg-info
