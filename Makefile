# What one types by hand and what continuous integration runs; `make help` lists it.
# Everything happens in .venv at the root, which need not be activated.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-postgres soak lint format setup lock

BIN := .venv/bin
STAMPS := .venv/.stamp
# Some machines have a `python3.12` on the path that only explains why it does not run; and some have a
# Python without `venv`. So a candidate is asked, not looked up.
SUITABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
# A variable VIRTUAL_ENV of another project would win over .venv if --python did not name it.
UV_INSTALL := $(BIN)/uv pip install --python $(BIN)/python \
	--constraints requirements.lock --build-constraints requirements.lock
DEFINITIONS := pyproject.toml requirements.lock
# What only reads images, trains encoders or searches files runs once, with `make test`; so does the map.
OPEN_A_DATABASE := tests/indexer tests/retriever tests/api --ignore=tests/api/test_page.py \
	$(addprefix --ignore=tests/indexer/,imagery training encoders vector_index milvus)

help: ## List these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-13s %s\n' "$$name" "$$text"; \
	done

demo: $(STAMPS)-runtime ## Set up, draw a small landscape, index it, show similar parcels and a state
	@$(BIN)/parcelle demo

test: lint ## Set up, run the linters, then the whole test suite
	@echo '== pytest, on two cores'
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-postgres: $(STAMPS)-dev ## Run the tests that open a database on PostgreSQL instead of SQLite
	@echo '== pytest on PostgreSQL, on two cores'
	@OMP_NUM_THREADS=1 PARCELLE_TEST_DATABASE=postgresql \
		$(BIN)/python -m pytest -n 2 --dist loadfile $(OPEN_A_DATABASE)

soak: $(STAMPS)-dev ## Ask, write and switch generations for ten minutes; every answer is checked
	@$(BIN)/python -m tests.soak --seconds 600

lint: $(STAMPS)-dev ## Check style, format, types and the direction of imports
	@echo '== ruff check'
	@$(BIN)/ruff check
	@echo '== ruff format --check'
	@$(BIN)/ruff format --check
	@echo '== mypy'
	@$(BIN)/mypy
	@echo '== lint-imports'
	@$(BIN)/lint-imports

format: $(STAMPS)-dev ## Sort imports and format the code
	@$(BIN)/ruff check --select I --fix
	@$(BIN)/ruff format

setup: $(STAMPS)-dev ## Create .venv with everything that tests and linters need

lock: $(STAMPS)-dev ## Pick the newest versions that fit pyproject.toml into requirements.lock
	@sed -n '/^#/p' requirements.lock > $(STAMPS)-lock
	@printf 'hatchling\neditables\nuv\n' | $(BIN)/uv pip compile pyproject.toml - --extra dev \
		--python-version 3.11 --upgrade --no-annotate --no-header --quiet >> $(STAMPS)-lock
	@mv $(STAMPS)-lock requirements.lock
	@echo 'requirements.lock is rewritten; `make test` installs and tries it.'

$(STAMPS)-venv:
	@if $(BIN)/python -c '$(SUITABLE)' > /dev/null 2>&1; then \
		echo 'Using the Python that is in .venv.'; \
	else \
		chosen=; \
		for candidate in "$${PYTHON:-python3.13}" python3.13 python3.12 python3.11 python3; do \
			if "$$candidate" -c '$(SUITABLE)' > /dev/null 2>&1; then chosen=$$candidate; break; fi; \
		done; \
		if [ -z "$$chosen" ]; then \
			echo 'Parcelle needs Python 3.11 or newer with its venv module, and none was found:' >&2; \
			echo 'tried $$PYTHON, python3.13, python3.12, python3.11 and python3.' >&2; \
			echo 'Install one (on Debian and Ubuntu together with the package python3-venv),' >&2; \
			echo 'or name one: make PYTHON=/path/to/python3.12 demo' >&2; \
			exit 1; \
		fi; \
		echo "Creating .venv with $$("$$chosen" --version)."; \
		"$$chosen" -m venv --clear .venv; \
	fi
	@if [ ! -x $(BIN)/uv ]; then \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock uv; \
	fi
	@touch $@

$(STAMPS)-runtime: $(STAMPS)-venv $(DEFINITIONS)
	@echo 'Installing Parcelle into .venv (UV_TORCH_BACKEND=cpu gets PyTorch without CUDA, which is far smaller).'
	@$(UV_INSTALL) --editable .
	@touch $@

# What tests need includes what the demo needs.
$(STAMPS)-dev: $(STAMPS)-venv $(DEFINITIONS)
	@echo 'Installing Parcelle and its test tools into .venv (UV_TORCH_BACKEND=cpu gets PyTorch without CUDA,'
	@echo 'which is far smaller).'
	@$(UV_INSTALL) --editable '.[dev]'
	@touch $(STAMPS)-runtime $@
