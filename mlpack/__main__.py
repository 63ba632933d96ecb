"""``python -m mlpack``."""

from mlpack.cli.main import main

if __name__ == "__main__":
    main()
