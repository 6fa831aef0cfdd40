"""The iSCSI target node: login, sessions, commands and their data (RFC 7143)."""
