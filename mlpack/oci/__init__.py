"""OCI content as immutable values; touches neither disk nor network."""
