# Two commands: `make course` and `make test`. Both set up what is missing. A third,
# `make test-browser`, does in JupyterLab what a learner does; it wants Node.js, npm and
# Chromium (CHROMIUM=PATH names another one).
#
#   PYTHON=python3.12 make course    another Python (3.11, 3.12 or 3.13)
#   TORCH_INDEX=URL   make course    where pip finds torch: give it an index with CPU
#                                    builds if your default one brings GPU libraries
#   MODE=full         make course    the real runs instead of the fast ones

PYTHON ?= python3
MODE ?= fast
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PINS := requirements.txt requirements-dev.txt
BROWSER := tests/browser
BROWSER_READY := $(BROWSER)/node_modules/.package-lock.json
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.txt)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Other libraries, beside the course's own packages: they are compared with, never used.
PEERS := .venv-peers
PEERS_READY := $(PEERS)/.ready
PEERS_PY := PYTHONPATH=.:tools TRL_EXPERIMENTAL_SILENCE=1 $(PEERS)/bin/python

.PHONY: help setup fetch course test test-browser test-peers lab bench notebooks lint format env-check clean
.DEFAULT_GOAL := help

help:
	@echo "make course     set up, fetch the corpus, run the lessons, show the table"
	@echo "make test       set up, then all tests: the package, the notebooks"
	@echo "make test-browser  a lesson and an exercise in JupyterLab, in a real browser"
	@echo "make test-peers    the audit on torchdistill, TextBrewer and TRL"
	@echo "make lab        open the lessons in JupyterLab"
	@echo "make bench      size, speed and quality as ratios (takes a while)"
	@echo "make notebooks  run every lesson in place and record its outputs"
	@echo "make lint       ruff and the notebook rules    make format  ruff, applied"
	@echo "make env-check  can the pinned list still be installed? (needs the network)"
	@echo "make clean      remove .venv and what tools left behind; the corpus stays"

setup: $(READY)

# The stamp comes last, so that a set-up cut short is done again.
$(READY): $(PINS) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else "This is Python %d.%d; the course wants 3.11, 3.12 or 3.13. Name one: PYTHON=python3.11 make course" % v[:2])'
	@test -x $(PY) || echo "Making $(VENV)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing $(TORCH), by exact version and first"
	@$(PY) -m pip install $(if $(strip $(TORCH_INDEX)),--index-url $(TORCH_INDEX)) $(TORCH)
	@echo "Installing the other packages: two minutes on a good line"
	@$(PY) -m pip install -qq $(addprefix -r ,$(PINS))
	@$(PY) -m pip install -qq --no-deps -e .
	@$(PY) -m pip check
	@touch $@

fetch: $(READY)
	@$(PY) -m kdcourse fetch

course: $(READY)
	@$(PY) -m kdcourse course --mode $(MODE)

test: $(READY)
	@$(PY) -m kdcourse test

test-browser: $(READY) $(BROWSER_READY)
	@$(PY) -m kdcourse fetch
	@PYTHON=$(PY) node $(BROWSER)/run.mjs

$(BROWSER_READY): $(BROWSER)/package.json $(BROWSER)/package-lock.json
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "The browser test wants Node.js 20 or later with npm. Install them (apt-get install nodejs npm, or use environment.yml)." >&2; exit 1; }
	@echo "Installing what drives the browser"
	@cd $(BROWSER) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

lab: $(READY)
	@$(PY) -m kdcourse lab

# What they need of us they find in .venv; of theirs only the losses are wanted.
$(PEERS_READY): $(READY) requirements-peers.txt
	@echo "Installing the libraries to compare with"
	@$(PY) -m venv --clear $(PEERS)
	@$(PY) -c 'import site; print(site.getsitepackages()[0])' > $(PEERS)/course.path
	@cp $(PEERS)/course.path "$$($(PEERS)/bin/python -c 'import site; print(site.getsitepackages()[0])')/course.pth"
	@$(PEERS)/bin/python -m pip install -qq --no-deps -r requirements-peers.txt
	@touch $@

test-peers: $(PEERS_READY)
	@$(PEERS_PY) -m pytest -p no:cacheprovider tests/test_04_peers.py

bench: $(READY) $(PEERS_READY)
	@$(PY) -m kdcourse bench
	@$(PEERS_PY) -m peers.bench

notebooks: $(READY)
	@$(PY) -m kdcourse fetch
	@$(PY) tools/run_notebooks.py
	@$(PY) tools/rebind_prose.py

lint: $(READY)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) tools/lint_notebooks.py

format: $(READY)
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

env-check: $(READY)
	@$(PY) tools/environment.py

clean:
	rm -rf $(VENV) $(BROWSER)/node_modules $(BROWSER)/failure.png build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
