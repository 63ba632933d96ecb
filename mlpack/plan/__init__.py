"""Decisions: values in, values out; no disk, no network, no clock."""
