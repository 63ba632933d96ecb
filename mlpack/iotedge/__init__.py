"""IoT Edge deployment manifests: read, checked, rendered, patched."""
