"""Values to text: deployment manifests and reports."""
