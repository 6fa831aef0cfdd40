"""``scripts/simulate``: two arrays, hosts, shims and an operator in one process, under virtual time."""
