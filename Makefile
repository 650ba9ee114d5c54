# SPDX-License-Identifier: GPL-2.0-only
# make validate   everything from nothing: packages, virtual environment, builds, and the run (ARGS=... for it)
# make test       the tests, ruff and mypy among them (ARGS=... for pytest); a few packages more: tests/packages.txt
# make setup      packages and virtual environment only
# make lint       ruff and mypy
# make clean      removes the virtual environment and what tools left; the build cache stays (KVMIRROR_CACHE)

SHELL := /bin/sh
VENV := .venv
PYTHON ?= python3
STAMP := $(VENV)/.installed
PACKAGES := harness/packages.txt
ARGS ?=

.PHONY: setup packages test-packages validate test lint clean
.NOTPARALLEL:
.DEFAULT_GOAL := validate

setup: packages $(STAMP)

# Asks apt only for what is missing, with root or sudo, and says so where there is neither.
test-packages: PACKAGES += tests/packages.txt
packages test-packages:
	@missing=$$(cat $(PACKAGES) | while read -r name sign; do \
		case "$$name" in ''|'#'*) continue ;; esac; \
		case "$$sign" in \
		/*) found=; for file in $$sign; do [ -e "$$file" ] && found=1; done ;; \
		*) found=$$(PATH="$$PATH:/usr/sbin:/sbin" command -v "$$sign") ;; \
		esac; \
		[ -n "$$found" ] || printf ' %s' "$$name"; \
	done); \
	[ -n "$$missing" ] || exit 0; \
	install="apt-get install -y --no-install-recommends$$missing"; \
	if ! command -v apt-get >/dev/null; then \
		echo "kvmirror needs Debian's packages$$missing, and there is no apt-get here: install them by hand" >&2; exit 4; \
	elif [ "$$(id -u)" = 0 ]; then root=; \
	elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then root=sudo; \
	else \
		echo "These packages are missing:$$missing" >&2; \
		echo "Neither root nor sudo is there to install them. As root: $$install" >&2; \
		echo "Then run make again: nothing else needs root." >&2; \
		exit 4; \
	fi; \
	echo "installing$$missing" >&2; \
	$$root apt-get -q update && $$root env DEBIAN_FRONTEND=noninteractive $$install || { \
		echo "apt could not install them (its reason is above). Mend that, or as root: $$install" >&2; exit 4; }

$(STAMP): pyproject.toml | packages
	@[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV) || { \
		echo "no virtual environment could be made with $(PYTHON): is python3-venv installed?" >&2; exit 4; }
	@$(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed: make PYTHON=/path/to/it after make clean" >&2; exit 4; }
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check -e '.[dev,lab]' || { \
		echo "pip could not install the requirements in pyproject.toml (is the package index reachable?)" >&2; exit 4; }
	@touch $@

# 0: nothing found, 1: findings. Both are a run that did its work.
validate: setup
	@code=0; $(VENV)/bin/kvmirror validate $(ARGS) || code=$$?; \
	echo "kvmirror validate: exit code $$code" >&2; \
	[ $$code -le 1 ] || exit $$code

test: test-packages setup
	@$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy -p kvmodel -p harness

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
