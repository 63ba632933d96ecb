"""Places of images on disk, one module per prefix: ``oci:``, ``docker-archive:``."""
