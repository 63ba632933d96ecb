"""What the runtime answers over HTTP: one module per group of paths."""
