"""A project on disk: its directory, models, releases, records and ledger."""
