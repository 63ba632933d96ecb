"""Servers that real clients talk to in tests, each on loopback, ended by process id."""
