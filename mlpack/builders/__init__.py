"""Ways to put a model version on a base: in this process, by Docker, by a cloud registry."""
