"""Rollouts of a release to a device group: decided as values, run against an IoT hub."""
