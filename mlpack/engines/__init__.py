"""Container engines on this machine: Docker and podman."""
