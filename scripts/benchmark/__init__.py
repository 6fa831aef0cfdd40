"""The benchmark: this array beside Debian's iSCSI targets and an NBD server, in the same run, with the same clients."""
