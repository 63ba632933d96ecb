"""OCI content as immutable values: no disk, no network, standard library only."""
