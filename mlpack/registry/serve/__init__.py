"""An OCI registry over a layout on disk, which container engines pull from and push to."""
