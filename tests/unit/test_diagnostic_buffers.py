"""The buffers of READ BUFFER and WRITE BUFFER are bounded, whoever writes how much (SPC-4 6.49)."""

from storage_model.nexus import ITNexus
from target.scsi.diagnostic_buffers import ECHO_BUFFERS, DiagnosticBuffers


def nexus(number):
    return ITNexus(f"iqn.2026-11.org.example:{number}", bytes(6))


def test_as_many_echo_buffers_as_there_may_be():
    buffers = DiagnosticBuffers()
    for number in range(3 * ECHO_BUFFERS):
        buffers.write_echo(nexus(number), b"e")
    kept = [number for number in range(3 * ECHO_BUFFERS) if buffers.read_echo(nexus(number)) is not None]
    assert kept == list(range(2 * ECHO_BUFFERS, 3 * ECHO_BUFFERS))
    remembered = [number for number in range(3 * ECHO_BUFFERS) if buffers.echo_overwritten(nexus(number))]
    assert remembered == list(range(ECHO_BUFFERS, 2 * ECHO_BUFFERS))


def test_writing_again_takes_no_place():
    buffers = DiagnosticBuffers()
    for number in range(ECHO_BUFFERS):
        buffers.write_echo(nexus(number), b"e")
    buffers.write_echo(nexus(5), b"again")
    assert buffers.read_echo(nexus(0)) == b"e" and buffers.read_echo(nexus(5)) == b"again"


def test_a_nexus_that_is_gone_is_forgotten():
    buffers = DiagnosticBuffers()
    buffers.write_echo(nexus(1), b"e")
    buffers.forget(nexus(1))
    assert buffers.read_echo(nexus(1)) is None and not buffers.echo_overwritten(nexus(1))
