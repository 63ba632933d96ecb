"""OCI registries: the client, and a server over a layout (``serve/``)."""
