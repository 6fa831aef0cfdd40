"""Two hosts at two sites, each a Linux guest with its shim, each with its array: a RESERVE has one winner."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.linux.guest import Guest, Step
from tests.linux.network import Network
from tests.linux.pair_in_network import PAIR, TARGETS, PairInNetwork, portal
from tests.linux.shim_in_guest import SHIM_PORTAL, shim

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

RACES = 20


async def race(pair: PairInNetwork, hosts: list[Step]) -> None:
    """Both hosts RESERVE at once. Afterwards the pair is armed for the next race."""
    await asyncio.gather(*(host.tell("reserve") for host in hosts))
    answers = await asyncio.gather(*(host.announces("answer") for host in hosts))
    assert sorted(answers) == ["CONFLICT", "GOOD"], f"{answers}\n{pair.logs()}"
    winner = answers.index("GOOD")
    # A RELEASE by the owner arms the pair for the next race, whether it still copies or mirrors already.
    await hosts[winner].tell("release")
    assert await hosts[winner].announces("answer") == "GOOD"
    await pair.both_wait("PSUS")


async def test_races(guest: Guest, second_guest: Guest, network: Network, linux_directory: Path) -> None:
    """RESERVE by two guests through two shims to two arrays, 20 times: one GOOD, one RESERVATION CONFLICT"""
    pair = PairInNetwork(network, linux_directory / "pair")
    async with AsyncExitStack() as cleanup:
        cleanup.push_async_callback(pair.stop)
        await pair.start()
        await pair.pairctl(0, "create", PAIR)
        await pair.both_wait("PAIR")
        await pair.pairctl(0, "split", PAIR)
        hosts = []
        for site, machine in enumerate((guest, second_guest)):
            await cleanup.enter_async_context(shim(machine, portal(site)))
            hosts.append(await machine.start("races.sh", {"TARGET": TARGETS[site], "PORTAL": SHIM_PORTAL}))
        for host in hosts:
            await host.announces("ready")
        for _ in range(RACES):
            await race(pair, hosts)
        for host in hosts:
            await host.tell("end")
            await host.ended()
