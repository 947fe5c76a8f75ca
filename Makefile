# Two words: `make run` (the main job) and `make test` (everything that must hold). Each makes the virtual
# environment it needs.

VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
SCENARIO ?= scenarios/skewed_edge.yaml
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

export OMP_NUM_THREADS ?= 1

.PHONY: run test clean

run: $(STAMP)
	$(PY) -m fedsim run $(SCENARIO)

test: $(STAMP)
	VENV=$(VENV) scripts/check

# The stamp is younger than the two files that say what to install exactly when the environment is up to date.
$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
