# `make help` lists what there is to make. Everything happens in $(VENV), which makes itself.

VENV ?= .venv
PYTHON ?=
ARGS ?=
SECONDS ?= 60
COUNT ?= 100
JOBS ?= 2

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet

LIBRARY := $(wildcard machio/csrc/*.c machio/csrc/linux/*.c)
C_SOURCES := $(LIBRARY) $(wildcard tests/c/*.c tests/fuzz/*.c tests/programs/*.c examples/c/*.c benchmarks/*.c)
C_HEADERS := $(wildcard machio/csrc/*.h machio/csrc/linux/*.h tests/c/*.h examples/c/*.h benchmarks/*.h) \
	$(shell find machio/csrc/linux/include -name '*.h' 2>/dev/null)
C_FORMATTED := $(filter-out %.cdef.h,$(C_SOURCES) $(C_HEADERS)) $(wildcard tests/costs/*.c tests/programs/*.cc)
LINT_CFLAGS := -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -pthread \
	-Imachio/csrc -Imachio/csrc/linux -Imachio/csrc/linux/include -Itests/c

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build demo test conformance stress mutants rules sanitize fuzz bench bench-quick \
	bench-compare wheels darwin lint format clean

help: ## list the targets
	@echo "make ..."
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
	    awk -F '|' '{ printf "%-13s %s\n", $$1, $$2 }'
	@echo "with PYTHON=python3.12, VENV=.venv312, ARGS='-k handshake' (for test) if wanted"

build: $(VENV)/.built ## make the environment and build machio in place

demo: $(VENV)/.built ## watch two processes exchange port rights
	@$(PY) examples/demo.py $(ARGS)

test: $(VENV)/.built $(VENV)/.test ## run all tests, those in C included
	@$(PY) -m pytest $(ARGS)

conformance: $(VENV)/.built $(VENV)/.test ## test Mach statement by statement and write docs/conformance.md
	@$(PY) -m pytest --quiet tests/mach/test_mach_*.py $(ARGS)
	@$(PY) tests/mach/matrix.py --write

stress: $(VENV)/.built $(VENV)/.test ## play the handshake's table COUNT times (100), JOBS (2) at once
	@seq $(COUNT) | xargs -P $(JOBS) -I ROUND sh -c '\
	    said=$$($(PY) -m pytest -q tests/test_handshake.py --round ROUND $(ARGS)) || \
	        { echo "$$said"; exit 255; }; \
	    echo "round ROUND of $(COUNT): $$(echo "$$said" | tail -n 1)"'

mutants: $(VENV)/.built $(VENV)/.test ## break promises of the code on purpose: each time a test must notice
	@$(PY) tests/mutate.py $(ARGS)

rules: $(VENV)/.built $(VENV)/.test ## play new random operations against the model of Mach's rights
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	    MACHIO_BOOTSTRAP="$$dir" $(PY) tests/mach/rules.py --examples 500 $(ARGS)

sanitize: $(VENV)/.built $(VENV)/.test ## run the C tests under ASan and UBSan, under TSan and under valgrind
	@MACHIO_C_FLAVOURS=sanitized,threads,valgrind $(PY) -m pytest tests/test_c.py -k program $(ARGS)

fuzz: build/fuzz/decode ## feed the decoder what hostile peers might send, for SECONDS (60)
	@mkdir -p build/fuzz/corpus
	@build/fuzz/decode -max_total_time=$(SECONDS) -timeout=20 -max_len=4096 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/ -verbosity=0 build/fuzz/corpus tests/fuzz/corpus

bench: $(VENV)/.built $(VENV)/.bench ## measure machio beside its peers, in eight minutes; ARGS=--help
	@$(PY) benchmarks $(ARGS)

bench-quick: $(VENV)/.built $(VENV)/.bench ## the same in a minute
	@$(PY) benchmarks --quick $(ARGS)

bench-compare: $(VENV)/.built ## lay the last two runs of bench, or two results in ARGS, side by side
	@$(PY) benchmarks --compare $(ARGS)

wheels: $(VENV)/.darwin ## build wheels for this Linux and for macOS into dist/, without a Mac
	@$(PY) tools/darwin/wheels.py dist

darwin: $(VENV)/.built $(VENV)/.darwin ## prove what can be proven of the macOS half on Linux
	@$(PY) -m pytest tests/darwin $(ARGS)

lint: $(VENV)/.dev $(C_SOURCES:%.c=build/lint/%.o) ## check style, types, layers and C warnings
	@$(PY) -m ruff check --quiet
	@$(PY) -m ruff format --check --quiet
	@$(PY) -m mypy
	@report=$$(PATH="$(abspath $(VENV))/bin:$$PATH" PYTHONPATH=. $(VENV)/bin/pyright \
	    --verifytypes machio --ignoreexternal) || { echo "$$report"; exit 1; }
	@$(VENV)/bin/actionlint .github/workflows/*.yml
	@report=$$($(VENV)/bin/lint-imports --no-cache) || { echo "$$report"; exit 1; }
	@$(VENV)/bin/clang-format --dry-run -Werror $(C_FORMATTED)

format: $(VENV)/.dev ## lay out all sources as the linters want them
	@$(PY) -m ruff check --fix-only --quiet
	@$(PY) -m ruff format --quiet
	@$(VENV)/bin/clang-format -i $(C_FORMATTED)

clean: ## remove everything that was made, the environment included
	rm -rf $(VENV) build dist machio/*.so *.egg-info .*_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What a Python must have; the sentence that it exits with completes "python3.x ...".
define CHECK_PYTHON
import importlib.util, os, sys, sysconfig
if sys.version_info < (3, 11):
    sys.exit("is older than 3.11")
if not importlib.util.find_spec("ensurepip"):
    sys.exit("has no ensurepip (Debian: install python3-venv)")
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    sys.exit("has no C headers (Debian: install python3-dev; Fedora: python3-devel)")
endef
export CHECK_PYTHON

$(VENV)/.python:
	@command -v $(firstword $(CC)) >/dev/null || \
	    { echo >&2 "machio needs a C compiler, and '$(CC)' is not there"; exit 1; }
	@reasons=; \
	for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	    command -v $$python >/dev/null || { reasons="$$reasons\n  $$python: not there"; continue; }; \
	    if reason=$$($$python -c "$$CHECK_PYTHON" 2>&1); then \
	        echo "making $(VENV) with $$($$python --version)"; \
	        $$python -m venv --clear $(VENV) && touch $@; exit; \
	    fi; \
	    reasons="$$reasons\n  $$python: $$(echo "$$reason" | head -n 1)"; \
	done; \
	printf >&2 'machio needs Python 3.11 or later; name one with make PYTHON=...%b\n' "$$reasons"; \
	exit 1

# A stage that is up to date is not run again: the second time nothing asks the network.
$(VENV)/.build: $(VENV)/.python pyproject.toml
	@echo "installing what the build needs"
	@$(PIP) install 'pip>=25.1'
	@$(PIP) install --group build
	@touch $@

$(VENV)/.built: $(VENV)/.build machio_build.py $(LIBRARY) $(C_HEADERS)
	@echo "building machio"
	@CC='$(CC)' PYTHONWARNINGS=ignore $(PIP) install --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.build | $(VENV)/.built
	@echo "installing what the tests need"
	@$(PIP) install --group test
	@touch $@

$(VENV)/.bench: $(VENV)/.build
	@echo "installing what the benchmarks need"
	@$(PIP) install --group bench
	@touch $@

$(VENV)/.darwin: $(VENV)/.build
	@echo "installing what cross builds need"
	@$(PIP) install --group darwin
	@touch $@

$(VENV)/.dev: $(VENV)/.build
	@echo "installing what the linters need"
	@$(PIP) install --group dev
	@touch $@

# libFuzzer comes with clang only.
CLANG ?= clang
build/fuzz/decode: tests/fuzz/decode.c $(LIBRARY) $(C_HEADERS)
	@command -v $(CLANG) >/dev/null || \
	    { echo >&2 "fuzzing needs clang (Debian: install clang libclang-rt-dev)"; exit 1; }
	@mkdir -p $(@D)
	@$(CLANG) $(LINT_CFLAGS) -g -O1 -fsanitize=fuzzer,address,undefined \
	    -fno-sanitize-recover=all $< $(wildcard machio/csrc/linux/*.c) -o $@

build/lint/%.o: %.c $(C_HEADERS)
	@mkdir -p $(@D)
	@$(CC) $(LINT_CFLAGS) -c $< -o $@
