# `make run` and `make test` need nothing but Python 3.11 or 3.12; PYTHON=… says which.

.DEFAULT_GOAL := help
.PHONY: help run test check bench bench-peers bench-plots clean

export PYTHON
DATA ?= ./fabric-data

help:
	@echo "make run     start everything on this machine; the registry is on 127.0.0.1:5000"
	@echo "make test    the whole test suite"
	@echo "make check   format, lint, types, layers and fast tests, in under a minute"
	@echo "make bench   measure; results go to bench/results/"
	@echo "make bench-peers   only the part beside SeaweedFS and docker-registry"
	@echo "make bench-plots   draw the newest result of that into docs/figures/"
	@echo "make clean   remove the environment and caches; stored data stays"

run:
	@scripts/environment
	@exec .venv/bin/fabric up --data $(DATA)

# Tests that start real processes wait half of their time; those of one file share processes, and a worker.
test:
	@scripts/environment test
	.venv/bin/python -m pytest -m "not e2e" -n 2
	.venv/bin/python -m pytest -m e2e -n 2 --dist loadfile

check:
	@scripts/environment test,check
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/python -m pytest tests/test_layers.py tests/test_documents.py tests/unit tests/contract tests/regressions -m "not slow and not e2e" -n 2

bench:
	@scripts/environment test
	.venv/bin/python -m bench
	.venv/bin/python -m bench.engine
	.venv/bin/python -m bench.healing
	$(MAKE) bench-peers

bench-peers:
	@scripts/environment test,bench
	.venv/bin/python -m bench.peers

bench-plots:
	@scripts/environment test,bench
	.venv/bin/python -m bench.peers.plots

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist ./*.egg-info
