"""The SCSICommand classes that pyscsi lacks: their CDBs, parameter lists and results, byte by byte."""

import pytest

from initiator_shim.pyscsi_commands import (
    PERSISTENT_RESERVE_IN,
    PERSISTENT_RESERVE_OUT,
    PairControlInCommand,
    PairControlOutCommand,
    PersistentReserveIn,
    PersistentReserveOut,
    Release6,
    Release10,
    Reserve6,
    Reserve10,
)
from storage_model.nexus import ITNexus
from storage_model.pair_state import FenceLevel, PairRole, PairState
from storage_model.spec.pair_cdb import PairOption, PairOut, PairStatus, StatusFlag, encode_claim


@pytest.mark.parametrize(
    ("command", "cdb"),
    [
        (Reserve6, "160000000000"),
        (Release6, "170000000000"),
        (Reserve10, "56000000000000000000"),
        (Release10, "57000000000000000000"),
    ],
)
def test_reserve_and_release(command, cdb: str) -> None:
    made = command()
    assert made.cdb.hex() == cdb
    assert len(made.datain) == len(made.dataout) == 0


def test_persistent_reserve_in_reads_keys() -> None:
    command = PersistentReserveIn(service_action=PERSISTENT_RESERVE_IN.serviceaction.READ_KEYS, alloclen=256)
    assert command.cdb.hex() == "5e000000000000010000"
    command.datain[:24] = bytes.fromhex("00000007 00000010 00000000000000aa 00000000000000bb")
    command.unmarshall()
    assert command.result == {"pr_generation": 7, "reservation_keys": [0xAA, 0xBB]}


def test_persistent_reserve_in_reads_the_reservation() -> None:
    command = PersistentReserveIn(service_action=PERSISTENT_RESERVE_IN.serviceaction.READ_RESERVATION)
    assert command.cdb.hex() == "5e010000000000100000"
    command.datain[:24] = bytes.fromhex("00000001 00000010 00000000000000aa 00000000 00 05 0000")
    command.unmarshall()
    assert command.result == {"pr_generation": 1, "reservation_key": 0xAA, "scope": 0, "pr_type": 5}


def test_persistent_reserve_out() -> None:
    command = PersistentReserveOut(
        service_action=PERSISTENT_RESERVE_OUT.serviceaction.PREEMPT,
        pr_type=3,
        reservation_key=0x11,
        service_action_reservation_key=0x22,
        aptpl=1,
    )
    assert command.cdb.hex() == "5f040300000000001800"
    assert command.dataout.hex() == "00000000000000110000000000000022" + "00000000" + "01000000"


def test_pair_control_in() -> None:
    command = PairControlInCommand(alloclen=512)
    assert command.cdb.hex() == "c0000000000000000000000002000000"
    status = PairStatus(
        role=PairRole.P_VOL, state=PairState.PAIR, fence=FenceLevel.DATA, flags=StatusFlag.QUORUM, copy_percent=100,
        epoch=3, ldev=1, peer_ldev=2, differing_bytes=0, size_bytes=512, serial="30095", peer_serial="30096",
        owner_serial="", owner=None, pair_name="p", group_name="g", volume_name="v",
    )  # fmt: skip
    data = status.encode()
    command.datain[: len(data)] = data
    command.unmarshall()
    assert command.result["role"] is PairRole.P_VOL and command.result["epoch"] == 3


def test_pair_control_out() -> None:
    claim = ITNexus("iqn.2026-11.org.example:host", bytes.fromhex("800000000001"))
    command = PairControlOutCommand(
        service_action=PairOut.SWAP_RESYNC, options=PairOption.GOOD_S_VOL, expected_epoch=5, claim=claim
    )
    assert bytes(command.dataout) == encode_claim(claim)
    assert command.cdb.hex() == "c1030800000000050000" + f"{len(command.dataout):08x}" + "0000"
