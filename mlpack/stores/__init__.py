"""The only code on disk, network and daemons."""
