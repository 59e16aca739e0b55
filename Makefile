# make run: the demo · make test: the tests · make check: all that must be clean before a commit
PYTHON ?= python3
BIN := .venv/bin
TOOLS := .venv/.tools
READY := .venv/.ready
LOWEST := .venv-lowest
UV := $(BIN)/uv pip
ARGS ?=
# Each process takes a file of tests after the other, with one thread: up to 2 GB of memory each.
TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: run test check setup benchmark gpu-check campaign docs lowest lock mutants

run: $(READY)
	$(BIN)/python train.py $(ARGS)

test: $(READY)
	$(TEST)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(TEST)

benchmark: $(READY)
	$(BIN)/python -m scripts.benchmark $(ARGS)

# All that only a machine with a GPU can show; at most 40 minutes.
gpu-check: $(READY)
	$(BIN)/python -m scripts.gpu_check $(ARGS)

campaign: $(READY)
	$(BIN)/python -m scripts.campaign $(ARGS)

docs: $(READY)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build
	@echo docs/_build/index.html

# Faults that the tests must catch, one after the other; not part of CI.
mutants: $(READY)
	$(BIN)/python scripts/mutants.py $(ARGS)

setup: $(READY)

# Nothing is installed whose hash is not in a lock, and nothing that builds it either: packages
# without a wheel are built with these tools alone (--no-build-isolation).
$(READY): $(TOOLS) requirements.lock pyproject.toml
	$(UV) install --quiet --python .venv --compile-bytecode --no-build-isolation --require-hashes -r requirements.lock
	$(UV) install --quiet --python .venv --no-build-isolation --no-deps -e .
	@touch $(READY)

$(TOOLS): requirements-build.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements-build.lock
	@touch $(TOOLS)

# The tests with the lowest versions that pyproject.toml allows, in an environment of their own.
# What these need in turn is not pinned.
lowest: $(TOOLS)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(UV) install --quiet --python $(LOWEST) --compile-bytecode --require-hashes --only-binary :all: -r requirements-build.lock
	$(UV) install --quiet --python $(LOWEST) --compile-bytecode --no-build-isolation --resolution lowest-direct \
		-e '.[anomalib,cluster,tensorboard,search,review,deploy,dev]'
	$(LOWEST)/bin/python -m pytest

# Pins every version with its hash and without an address, for any platform.
LOCK = $(UV) compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"
lock: $(TOOLS)
	$(LOCK) --extra anomalib --extra cluster --extra tensorboard --extra search --extra review --extra deploy --extra docs --extra dev pyproject.toml -o requirements.lock
	$(LOCK) --group pyproject.toml:build --constraints requirements.lock -o requirements-build.lock
	$(LOCK) --group pyproject.toml:serve --constraints requirements.lock -o requirements-serve.lock
