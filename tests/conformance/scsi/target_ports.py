"""A bench with two target ports, 1 and 2, and what to ask them."""

from dataclasses import replace

from storage_model.spec.scsi_target_port_groups import (
    AccessState,
    TargetPortGroup,
    decode_target_port_groups,
    set_target_port_groups,
)
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B, Bench

REPORT = "a3 0a 00 00 00 00 00 00 10 00 00 00"
PORT_2_A = replace(NEXUS_A, target_port=2)
PORT_2_B = replace(NEXUS_B, target_port=2)


def with_two_ports(bench: Bench, **states: AccessState) -> Bench:
    """``port_2=AccessState.STANDBY`` and the like; both are active/optimized otherwise."""
    optimized = AccessState.ACTIVE_OPTIMIZED
    bench.server.port_groups.replace({1: states.get("port_1", optimized), 2: states.get("port_2", optimized)})
    for nexus in (PORT_2_A, PORT_2_B):
        bench.server.nexus_established(nexus)
        bench.lu.unit_attentions.take(nexus)
    return bench


def set_cdb(length: int) -> bytes:
    return bytes((0xA4, 0x0A, 0, 0, 0, 0)) + length.to_bytes(4, "big") + b"\0\0"


async def set_states(bench: Bench, states: dict[int, int], nexus: object = NEXUS_A) -> None:
    """SET TARGET PORT GROUPS, which must end with GOOD."""
    parameters = set_target_port_groups(states)
    await bench.good(set_cdb(len(parameters)), parameters, nexus=nexus)  # type: ignore[arg-type]


async def report(bench: Bench) -> dict[int, TargetPortGroup]:
    return {group.group: group for group in decode_target_port_groups(await bench.good(REPORT))}
