"""The figures of the C clients, out of what they really print."""

import pytest

from scripts.benchmark.clients import parse_iscsi_perf, parse_qemu_img
from scripts.benchmark.servers import BenchmarkError

QEMU_IMG = """\
Sending 5000 write requests, 4096 bytes each, 32 in parallel (starting at offset 0, step size 4096)
Run completed in 0.123 seconds.
"""
ISCSI_PERF = """\
iscsi-perf version 0.1 - (c) 2014-2015 by Peter Lieven <pl@ĸamp.de>

connected to iscsi://127.0.0.1:36409/iqn.2026-11.org.pairvol:array/1
capacity is 4096 blocks or 16777216 byte (16 MB)
performing SEQUENTIAL READ with 4 parallel requests
FIXED transfer size of 1 blocks (4096 byte)
will run for 2 seconds.


00:00:01 - lba 732, iops current 4776 (18 MB/s), iops average 4776 (18 MB/s), in_flight 4, busy 0        \

iops average 4333 (16 MB/s)

finished.
"""


def test_qemu_img() -> None:
    assert parse_qemu_img(QEMU_IMG) == 0.123


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("qemu-img: Could not open 'x': iSCSI: Failed to connect\n", "Failed to connect"),
        ("", "no output"),
        (QEMU_IMG.splitlines()[0] + "\nrun completed in 1 seconds.", "run completed"),
    ],
)
def test_qemu_img_that_failed(output: str, told: str) -> None:
    with pytest.raises(BenchmarkError, match=f"qemu-img bench: .*{told}"):
        parse_qemu_img(output)


def test_iscsi_perf() -> None:
    assert parse_iscsi_perf(ISCSI_PERF) == 4333


@pytest.mark.parametrize("output", ["", "iops average 0 (0 MB/s)\n", "failed to log in\r\n"])
def test_iscsi_perf_that_failed(output: str) -> None:
    with pytest.raises(BenchmarkError, match="iscsi-perf: "):
        parse_iscsi_perf(output)
