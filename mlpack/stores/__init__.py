"""Stores of OCI content (layout, archive), copies between them, and files on disk."""
