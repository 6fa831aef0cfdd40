"""Every command under every reservation, by every kind of nexus: what the standards' tables say, written down here.

A command of the table that has no line here fails: who adds one looks up its line first.
"""

from dataclasses import dataclass
from typing import TypeAlias

import pytest

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_persistent_reservation import BasicParameters, MoveParameters, TransportId
from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.command_table import COMMAND_ROWS
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B, Bench, make_bench

# Columns, A allowed, C conflict:
#   RESERVE: the unit is reserved by RESERVE of another (SPC-2 table 10, SBC-3 table 4, SPC-2 table B.2)
#   of a persistent reservation held by another (SPC-4 table 65, SBC-3 and SBC-4 table 13):
#   WE, EA: Write Exclusive, Exclusive Access, from any other nexus
#   registered: from a registered nexus, under all Registrants Only and All Registrants types
#   WE-RR, EA-RR: from a nexus that is not registered, under those
TABLE = """
code  action  RESERVE  WE  EA  registered  WE-RR  EA-RR   clause
00    -       C        A   A   A           A      A       SPC-4 t65 TEST UNIT READY
03    -       A        A   A   A           A      A       SPC-4 t65 REQUEST SENSE
04    -       C        C   C   A           C      C       SBC-3 t13 FORMAT UNIT
08    -       C        A   C   A           A      C       SBC-3 t13 READ
0A    -       C        C   C   A           C      C       SBC-3 t13 WRITE
12    -       A        A   A   A           A      A       SPC-4 t65 INQUIRY
15    -       C        C   C   A           C      C       SPC-4 t65 MODE SELECT
1A    -       C        A   C   A           A      C       SPC-4 t65 MODE SENSE
1B/00 -       C        C   C   A           C      C       SBC-3 t13 START STOP UNIT, START 0
1B/01 -       A        A   A   A           A      A       SBC-3 t13 START STOP UNIT, START 1, POWER CONDITION 0h
1B/11 -       C        C   C   A           C      C       SBC-3 t13 START STOP UNIT, START 1, POWER CONDITION 1h
1E/00 -       A        A   A   A           A      A       SBC-3 t13 PREVENT ALLOW MEDIUM REMOVAL, PREVENT 0
1E/01 -       C        C   C   A           C      C       SBC-3 t13 PREVENT ALLOW MEDIUM REMOVAL, PREVENT 1
25    -       A        A   A   A           A      A       SBC-3 t13 READ CAPACITY
28    -       C        A   C   A           A      C       SBC-3 t13 READ
2A    -       C        C   C   A           C      C       SBC-3 t13 WRITE
2E    -       C        C   C   A           C      C       SBC-3 t13 WRITE AND VERIFY
2F    -       C        A   C   A           A      C       SBC-3 t13 VERIFY
34    -       C        A   C   A           A      C       SBC-3 t13 PRE-FETCH
35    -       C        C   C   A           C      C       SBC-3 t13 SYNCHRONIZE CACHE
37    -       C        A   C   A           A      C       SBC-3 t13 READ DEFECT DATA
3B    -       C        C   C   A           C      C       SPC-4 t65 WRITE BUFFER
3C    -       C        A   C   A           A      C       SPC-4 t65 READ BUFFER
41    -       C        C   C   A           C      C       SBC-3 t13 WRITE SAME
42    -       C        C   C   A           C      C       SBC-3 t13 UNMAP
48    01      C        C   C   A           C      C       SBC-3 t13 SANITIZE
48    02      C        C   C   A           C      C       SBC-3 t13 SANITIZE
48    03      C        C   C   A           C      C       SBC-3 t13 SANITIZE
48    1F      C        C   C   A           C      C       SBC-3 t13 SANITIZE
4C    -       C        C   C   A           C      C       SPC-4 t65 LOG SELECT
4D    -       A        A   A   A           A      A       SPC-4 t65 LOG SENSE
55    -       C        C   C   A           C      C       SPC-4 t65 MODE SELECT
5A    -       C        A   C   A           A      C       SPC-4 t65 MODE SENSE
5E    00      C        A   A   A           A      A       SPC-4 t65 PERSISTENT RESERVE IN
5E    01      C        A   A   A           A      A       SPC-4 t65 PERSISTENT RESERVE IN
5E    02      C        A   A   A           A      A       SPC-4 t65 PERSISTENT RESERVE IN
5E    03      C        A   A   A           A      A       SPC-4 t65 PERSISTENT RESERVE IN
83    00      C        C   C   A           C      C       SPC-4 t65 EXTENDED COPY(LID1)
83    01      C        C   C   A           C      C       SPC-4 t65 EXTENDED COPY(LID4)
84    00      C        A   A   A           A      A       SPC-4 t65 RECEIVE COPY STATUS(LID1)
84    01      C        A   A   A           A      A       SPC-4 t65 RECEIVE COPY DATA(LID1)
84    03      C        A   A   A           A      A       SPC-4 t65 RECEIVE COPY OPERATING PARAMETERS
84    04      C        A   A   A           A      A       SPC-4 t65 RECEIVE COPY FAILURE DETAILS(LID1)
88    -       C        A   C   A           A      C       SBC-3 t13 READ
89    -       C        C   C   A           C      C       SBC-3 t13 COMPARE AND WRITE
8A    -       C        C   C   A           C      C       SBC-3 t13 WRITE
8B    -       C        C   C   A           C      C       SBC-3 t13 ORWRITE
8E    -       C        C   C   A           C      C       SBC-3 t13 WRITE AND VERIFY
8F    -       C        A   C   A           A      C       SBC-3 t13 VERIFY
90    -       C        A   C   A           A      C       SBC-3 t13 PRE-FETCH
91    -       C        C   C   A           C      C       SBC-3 t13 SYNCHRONIZE CACHE
93    -       C        C   C   A           C      C       SBC-3 t13 WRITE SAME
9C    -       C        C   C   A           C      C       SBC-4 t13 WRITE ATOMIC
9E    10      A        A   A   A           A      A       SBC-3 t13 READ CAPACITY
9E    12      C        A   C   A           A      C       SBC-3 t13 GET LBA STATUS
A0    -       A        A   A   A           A      A       SPC-4 t65 REPORT LUNS
A3    0A      A        A   A   A           A      A       SPC-4 t65 REPORT TARGET PORT GROUPS
A3    0C      C        A   C   A           A      C       SPC-4 t65 REPORT SUPPORTED OPERATION CODES
A3    0D      C        A   C   A           A      C       SPC-4 t65 REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
A4    0A      C        C   C   A           C      C       SPC-4 t65 SET TARGET PORT GROUPS
A8    -       C        A   C   A           A      C       SBC-3 t13 READ
AA    -       C        C   C   A           C      C       SBC-3 t13 WRITE
AE    -       C        C   C   A           C      C       SBC-3 t13 WRITE AND VERIFY
AF    -       C        A   C   A           A      C       SBC-3 t13 VERIFY
B7    -       C        A   C   A           A      C       SBC-3 t13 READ DEFECT DATA
C0    00      A        A   A   A           A      A       ours: how a reservation comes to be decided
C1    00      A        A   A   A           A      A       ours
C1    01      A        A   A   A           A      A       ours
C1    02      A        A   A   A           A      A       ours
C1    03      A        A   A   A           A      A       ours
C1    04      A        A   A   A           A      A       ours
C1    05      A        A   A   A           A      A       ours
C1    06      A        A   A   A           A      A       ours
C1    07      A        A   A   A           A      A       ours
C1    08      A        A   A   A           A      A       ours
"""

# The commands that reserve, by who sends them. RESERVE: under that of another. Of the persistent ones, from a nexus
# that holds, that is registered, that is not (SPC-4 table 66); a key is told that is the sender's own.
# RESERVE and RELEASE conflict while anybody is registered (SPC-2 5.5.1) but from whom the reservation takes in
# (SPC-4 5.13.3), which under Write Exclusive and Exclusive Access is the holder alone: "rr" is allowed but then. A
# RELEASE that is not the holder's does nothing (SPC-2 7.18.2).
# REGISTER AND MOVE by a holder that is one of all registrants conflicts (SPC-4 5.13.8): "c" conflicts then.
RESERVING = """
code  action  RESERVE  holder  registered  stranger  clause
16    -       C        A       rr          C         SPC-4 5.13.3, SPC-2 5.5.1 RESERVE(6)
17    -       A        A       rr          C         SPC-4 5.13.3, SPC-2 5.5.1 RELEASE(6)
56    -       C        A       rr          C         SPC-4 5.13.3, SPC-2 5.5.1 RESERVE(10)
57    -       A        A       rr          C         SPC-4 5.13.3, SPC-2 5.5.1 RELEASE(10)
5F    00      C        A       A           A         SPC-4 t66 REGISTER
5F    01      C        A       C           C         SPC-4 t66 RESERVE
5F    02      C        A       A           C         SPC-4 t66 RELEASE
5F    03      C        A       A           C         SPC-4 t66 CLEAR
5F    04      C        A       A           C         SPC-4 t66 PREEMPT
5F    05      C        A       A           C         SPC-4 t66 PREEMPT AND ABORT
5F    06      C        A       A           A         SPC-4 t66 REGISTER AND IGNORE EXISTING KEY
5F    07      C        c       C           C         SPC-4 t66, 5.13.8 REGISTER AND MOVE
"""

State: TypeAlias = int | str
"""A type of persistent reservation, or one of two words."""

RESERVED_BY_RESERVE = "RESERVE"
TYPES = {1: "WE", 3: "EA", 5: "WE-RO", 6: "EA-RO", 7: "WE-AR", 8: "EA-AR"}
STATES: tuple[State, ...] = ("none", RESERVED_BY_RESERVE, *TYPES)
ROLES = ("holder", "registrant", "registrant with the holder's key", "stranger")

OF_THE_HOLDER, OF_ANOTHER = 0x1111, 0x2222
NEXUSES = {
    "holder": NEXUS_A,
    "registrant": NEXUS_B,
    "registrant with the holder's key": ITNexus("iqn.2026-11.org.example:c", b"\x80\0\0\0\0\x03"),
    "stranger": ITNexus("iqn.2026-11.org.example:d", b"\x80\0\0\0\0\x04"),
}
KEYS = {
    "holder": OF_THE_HOLDER,
    "registrant": OF_ANOTHER,
    "registrant with the holder's key": OF_THE_HOLDER,
    "stranger": 0,
}


@dataclass(frozen=True)
class Line:
    """One line of either table; ``byte_4`` of the CDB where the answer depends on it."""

    code: int
    action: int | None
    byte_4: int
    columns: dict[str, str]
    clause: str

    @property
    def key(self) -> tuple[int, int | None]:
        return self.code, self.action

    def __str__(self) -> str:
        return f"{self.code:02X}h-{self.action or self.byte_4:02X}h"


def read_table(text: str) -> list[Line]:
    head, *lines = text.strip().splitlines()
    names = head.split()[2:-1]
    found = []
    for line in lines:
        code, action, *cells = line.split(None, len(names) + 2)
        code, _, byte_4 = code.partition("/")
        columns = dict(zip(names, cells[:-1], strict=True))
        found.append(
            Line(int(code, 16), None if action == "-" else int(action, 16), int(byte_4 or "0", 16), columns, cells[-1])
        )
    return found


LINES, RESERVING_LINES = read_table(TABLE), read_table(RESERVING)
KNOWN = {line.key for line in (*LINES, *RESERVING_LINES)}
PRESENT = {(row.operation_code, row.service_action) for row in COMMAND_ROWS}


def test_every_command_has_its_line():
    assert not PRESENT - KNOWN


def expect(line: Line, state: State, role: str) -> str:
    """A or C, of a command that does not itself reserve."""
    if state == "none":
        return "A"
    if isinstance(state, str):
        persistent_reserve_in = line.code == 0x5E  # conflicts whoever asks (SPC-2 5.5.1)
        return "A" if role == "holder" and not persistent_reserve_in else line.columns["RESERVE"]
    if role == "holder":
        return "A"
    kind = TYPES[state]
    if kind in ("WE", "EA"):
        return line.columns[kind]
    return line.columns[f"{kind[:2]}-RR"] if role == "stranger" else line.columns["registered"]


def expect_of_reserving(line: Line, state: State, role: str) -> str:
    """A or C, of RESERVE, RELEASE and PERSISTENT RESERVE OUT."""
    persistent = line.code == 0x5F
    if state == "none":
        # Nobody is registered: what needs a registration conflicts (SPC-4 5.13.7).
        return "C" if persistent and line.action not in (0x00, 0x06) else "A"
    if isinstance(state, str):
        return "A" if role == "holder" and not persistent else line.columns["RESERVE"]  # SPC-2 5.5.1
    kind = TYPES[state]
    if role == "stranger":
        return line.columns["stranger"]
    holds = role == "holder" or kind.endswith("AR")
    cell = line.columns["holder" if holds else "registered"]
    if cell == "rr":
        return "A" if kind.endswith("RO") else "C"
    if cell == "c":
        return "C" if kind.endswith("AR") else "A"
    return cell


async def persistent_reserve_out(
    bench: Bench, action: int, role: str, kind: int, key: int, action_key: int
) -> ScsiStatus:
    """With the nexus's own key, and in everything else what makes it a correct command."""
    if action == 0x07:
        other_port = TransportId("iqn.2026-11.org.example:e", b"\x80\0\0\0\0\x05").encode()
        data = MoveParameters(key, action_key or 1, 1, other_port).encode()
    else:
        data = BasicParameters(key, action_key).encode()
    cdb = bytes((0x5F, action, kind, 0, 0)) + len(data).to_bytes(4, "big") + b"\0"
    return (await bench.run(cdb, data, NEXUSES[role])).status


async def make_state(state: State) -> Bench:
    bench = make_bench(removable=True)
    for nexus in NEXUSES.values():
        if nexus not in bench.lu.unit_attentions.known:
            bench.server.nexus_established(nexus)
            bench.lu.unit_attentions.take(nexus)
    if state == RESERVED_BY_RESERVE:
        await bench.good("16", nexus=NEXUSES["holder"])
    elif isinstance(state, int):
        for role, key in KEYS.items():
            if key:
                assert await persistent_reserve_out(bench, 0x06, role, 0, 0, key) is ScsiStatus.GOOD
        assert await persistent_reserve_out(bench, 0x01, "holder", state, OF_THE_HOLDER, 0) is ScsiStatus.GOOD
    return bench


def name_of(state: State) -> str:
    return TYPES[state] if isinstance(state, int) else str(state)


async def status_of(bench: Bench, line: Line, state: State, role: str) -> ScsiStatus:
    cdb = bytes((line.code, line.action or 0, 0, 0, line.byte_4))
    outcome = await bench.run(cdb, b"", NEXUSES[role])
    if outcome.status is ScsiStatus.RESERVATION_CONFLICT:
        assert not outcome.data_in and not outcome.sense
    return outcome.status


async def status_of_reserving(bench: Bench, line: Line, state: State, role: str) -> ScsiStatus:
    """Of a command that is correct, so that all but conflicts end with GOOD."""
    if line.code != 0x5F:
        return (await bench.run(bytes((line.code,)), b"", NEXUSES[role])).status
    assert line.action is not None
    key, kind = (KEYS[role], state) if isinstance(state, int) else (0, 1)
    # REGISTER gives a new key, PREEMPT names one that is registered: the holder's.
    action_key = OF_THE_HOLDER if line.action in (0x04, 0x05) else 0x3333
    return await persistent_reserve_out(bench, line.action, role, kind, key, action_key)


CASES = [(state, role) for state in STATES for role in ROLES]


@pytest.mark.parametrize("line", [line for line in LINES if line.key in PRESENT], ids=str)
async def test_command(line):
    wrong = []
    for state, role in CASES:
        status = await status_of(await make_state(state), line, state, role)
        if (status is ScsiStatus.RESERVATION_CONFLICT) is not (expect(line, state, role) == "C"):
            wrong.append((name_of(state), role, status))
    assert not wrong, line.clause


@pytest.mark.parametrize("line", RESERVING_LINES, ids=str)
async def test_command_that_reserves(line):
    wrong = []
    for state, role in CASES:
        status = await status_of_reserving(await make_state(state), line, state, role)
        conflict = expect_of_reserving(line, state, role) == "C"
        if status is not (ScsiStatus.RESERVATION_CONFLICT if conflict else ScsiStatus.GOOD):
            wrong.append((name_of(state), role, status))
    assert not wrong, line.clause


def test_each_clause_is_cited_for_the_command_it_has():
    """No line twice, and every cell one of the two words."""
    keys = [(line.code, line.action, line.byte_4) for line in (*LINES, *RESERVING_LINES)]
    assert len(keys) == len(set(keys))
    assert {cell for line in LINES for cell in line.columns.values()} == {"A", "C"}
