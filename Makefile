.PHONY: demo test lint format docs bench bench-delta clean

PYTHON := .venv/bin/python

# uidmap is what mmdebstrap needs where make runs without root.
demo:
	@scripts/system-packages mmdebstrap uidmap ca-certificates
	@scripts/venv sklearn
	@examples/fan/demo.sh demo

test:
	@scripts/system-packages mmdebstrap ca-certificates chromium chromium-driver containerd \
		docker-registry docker.io gcc influxdb libc6-dev mosquitto openssl podman qemu-user runc skopeo umoci
	@scripts/venv dev
	@scripts/tests

lint:
	@scripts/venv dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format:
	@scripts/venv dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs:
	@scripts/venv dev
	$(PYTHON) scripts/reference.py docs/reference.md
	$(PYTHON) -m tests.azure.transcript docs/rollout.md

bench:
	@scripts/system-packages mmdebstrap ca-certificates docker.io containerd runc podman buildah umoci skopeo docker-registry openssl wrk
	@scripts/venv dev
	$(PYTHON) -m benchmarks

# Ten minutes, most of them bsdiff's.
bench-delta:
	@scripts/system-packages bsdiff xdelta3 zstd
	@scripts/venv dev
	$(PYTHON) -m benchmarks.delta

clean:
	rm -rf .venv demo .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
