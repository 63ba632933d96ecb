.PHONY: demo test test-unit test-full coverage core-tests lint prose format docs site bench bench-delta clean

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest --numprocesses 3

# uidmap is what mmdebstrap needs where make runs without root.
demo:
	@scripts/system-packages mmdebstrap uidmap ca-certificates
	@scripts/venv sklearn
	@examples/fan/demo.sh demo

test:
	@scripts/test-packages
	@scripts/venv dev
	$(PYTEST)

# What needs no engine and no patience.
test-unit:
	@scripts/venv dev
	$(PYTEST) -m "not e2e and not slow"

# As CI does: random input is tried several times as often.
test-full:
	@MLPACK_TEST_PROFILE=full $(MAKE) --no-print-directory test

# Branch coverage of the unit tests, and the floors of the rooms that decide.
coverage:
	@scripts/venv dev
	$(PYTEST) -m "not e2e and not slow" --cov --cov-report=
	scripts/coverage-floors

# The wheel without any extra.
core-tests:
	@scripts/venv dev
	@scripts/core-tests

lint:
	@scripts/venv dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/codespell mlpack docs examples templates benchmarks scripts *.md
	.venv/bin/proselint check --config scripts/proselint.json docs examples/*/README.md *.md
	$(PYTHON) scripts/prose.py
	.venv/bin/zensical build --strict --clean

# Phrases and class names to replace; a part of lint.
prose:
	@scripts/venv dev
	$(PYTHON) scripts/prose.py

format:
	@scripts/venv dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs:
	@scripts/venv dev
	$(PYTHON) scripts/reference.py docs/reference/cli.md
	$(PYTHON) scripts/settings.py docs/reference/settings.md
	$(PYTHON) scripts/errors.py docs/reference/errors.md
	$(PYTHON) scripts/pictures.py
	$(PYTHON) scripts/recording.py
	$(PYTHON) -m tests.azure.transcript docs/design/rollout.md

# The documentation site, in site/; a broken link ends it.
site:
	@scripts/venv dev
	.venv/bin/zensical build --strict --clean

bench:
	@scripts/system-packages mmdebstrap ca-certificates docker.io containerd runc podman buildah umoci skopeo docker-registry openssl wrk
	@scripts/venv dev
	$(PYTHON) -m benchmarks

# Ten minutes on two idle cores; the peers' libraries go into .cache/peers.
bench-delta:
	@scripts/system-packages bsdiff xdelta3 zstd
	@scripts/venv dev
	$(PYTHON) -m benchmarks.tensor_patch

clean:
	rm -rf .venv demo .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
