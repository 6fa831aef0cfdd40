"""Which commands a logical unit has, written down apart from the command table: what a sweep over all codes expects."""

NO_SERVICE_ACTION: frozenset[int] = frozenset()

SUPPORTED: dict[int, frozenset[int]] = {
    # SPC-4 annex F.3 and SBC-3 annex: the codes without a service action.
    **dict.fromkeys(
        (
            *(0x00, 0x03, 0x04, 0x08, 0x0A, 0x12, 0x15, 0x16, 0x17, 0x1A, 0x1B, 0x1E),
            *(0x25, 0x28, 0x2A, 0x2E, 0x2F, 0x34, 0x35, 0x37, 0x3B, 0x3C),
            *(0x41, 0x42, 0x4C, 0x4D, 0x55, 0x56, 0x57, 0x5A),
            *(0x88, 0x89, 0x8A, 0x8B, 0x8E, 0x8F, 0x90, 0x91, 0x93, 0x9C),
            *(0xA0, 0xA8, 0xAA, 0xAE, 0xAF, 0xB7),
        ),
        NO_SERVICE_ACTION,
    ),
    0x48: frozenset({0x01, 0x02, 0x1F}),  # SANITIZE: OVERWRITE, BLOCK ERASE, EXIT FAILURE MODE (SBC-3 5.22)
    0x5E: frozenset({0, 1, 2, 3}),  # PERSISTENT RESERVE IN (SPC-4 6.15)
    0x5F: frozenset({0, 1, 2, 3, 4, 5, 6, 7}),  # PERSISTENT RESERVE OUT (SPC-4 6.16)
    0x83: frozenset({0x00}),  # EXTENDED COPY(LID1) (SPC-4 6.6)
    0x84: frozenset({0x00, 0x01, 0x03, 0x04}),  # RECEIVE COPY RESULTS(LID1) (SPC-4 6.18 to 6.22)
    0x9E: frozenset({0x10, 0x12}),  # READ CAPACITY(16), GET LBA STATUS (SBC-3 5.4, 5.16)
    0xA3: frozenset({0x0A, 0x0C, 0x0D}),  # REPORT TARGET PORT GROUPS, the two REPORT SUPPORTED (SPC-4 6.34 to 6.37)
    0xA4: frozenset({0x0A}),  # SET TARGET PORT GROUPS (SPC-4 6.45)
    0xC0: frozenset({0x00}),  # the pair's own
    0xC1: frozenset(range(9)),
}

ANSWERED_WITHOUT_A_UNIT = frozenset({0x03, 0x12, 0xA0})
"""REQUEST SENSE, INQUIRY, REPORT LUNS: they have an answer of their own where no logical unit is (SPC-4 6.4.1)."""
