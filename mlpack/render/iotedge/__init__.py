"""IoT Edge deployment manifests: made from a template, and checked as the device would."""
