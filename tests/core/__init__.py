"""Tests that need nothing but mlpack and pytest: ``scripts/core-tests`` runs them on the wheel."""
