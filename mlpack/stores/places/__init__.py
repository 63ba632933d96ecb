"""Places of images on disk, one module per prefix, such as ``oci:``."""
