# The project's commands.  `make run` needs a Debian 12 with python3 and make; the rest installs what it needs,
# or says what that is.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help run test lint types docs bench clean

help:
	@echo 'make run    start the sandbox: a complete MSA on this machine, to try a client against'
	@echo 'make test   the whole suite, under trial and under pytest'
	@echo 'make lint   ruff and mypy'
	@echo 'make bench  the benchmarks, beside Postfix in the same run (as root)'
	@echo 'make docs   the documentation, in docs/_build/html'
	@echo 'make clean  remove everything that was made'

run: .venv/installed
	@exec $(BIN)/digipoort-msa sandbox

test: .venv/development
	.ci/debian-packages $$(cat .ci/packages)
	.ci/test $(BIN)/python

lint: types .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/development
	$(BIN)/mypy

docs: .venv/development
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

bench: .venv/development
	$(BIN)/python -m benchmarks

# An editable install: the checkout is what runs.
.venv/installed: setup.cfg pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/development: setup.cfg pyproject.toml | .venv/bin/pip
	.ci/debian-packages $$(cat .ci/build-packages)
	$(BIN)/pip install --quiet --editable '.[test,lint,docs,postgresql,mariadb,ldap,http,dns]'
	@touch $@ .venv/installed

# Debian's python3 makes no virtual environment without python3-venv.
.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python 3.11 or later is needed; PYTHON=... names another than $(PYTHON).' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/debian-packages python3-venv
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv .run build dist *.egg-info docs/_build docs/generated
	rm -rf _trial_temp* .hypothesis .mypy_cache .pytest_cache .ruff_cache twisted/plugins/dropin.cache
	find . -name __pycache__ -prune -exec rm -rf {} +
