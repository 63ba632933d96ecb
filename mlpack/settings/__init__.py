"""``mlpack.toml`` as checked values."""
