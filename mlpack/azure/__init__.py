"""Azure through its own SDKs: the extra ``azure`` brings them, and each is imported where used."""
