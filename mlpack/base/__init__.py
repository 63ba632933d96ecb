"""Assembling a base without a daemon: an image or Debian packages, wheels, the runtime."""
