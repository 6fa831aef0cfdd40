"""VPD and parameter data codecs."""

import pytest

from storage_model.spec import scsi_pages as pages


def test_designators_survive_the_page():
    designators = [*pages.unit_designators("30095-7"), *pages.port_designators("iqn.2026-11.org.pairvol:a", 2)]
    page = pages.vpd_page(0x83, b"".join(designator.encode() for designator in designators))
    assert pages.decode_designators(page) == designators
    for cut in range(len(page)):
        assert pages.decode_designators(page[:cut]) == designators[: len(pages.decode_designators(page[:cut]))]


def test_one_name_is_one_identity():
    assert pages.unit_designators("30095-7") == pages.unit_designators("30095-7")
    assert pages.unit_designators("30095-7")[0] != pages.unit_designators("30095-8")[0]


def test_port_designators_say_that_the_protocol_is_iscsi():
    """SPC-4 7.8.6.1: PIV and PROTOCOL IDENTIFIER 5h."""
    for designator in pages.port_designators("iqn.2026-11.org.pairvol:a", 1):
        encoded = designator.encode()
        assert encoded[0] >> 4 == 5 and encoded[1] & 0x80


@pytest.mark.parametrize(
    ("text", "length", "expected"), [("ab", 4, b"ab  "), ("abcdef", 4, b"abcd"), ("a\x00ü", 4, b"a?? ")]
)
def test_ascii_fields(text, length, expected):
    assert pages.ascii_field(text, length) == expected


def test_unmap_parameter_list():
    """SBC-3 table 117."""
    assert pages.unmap_parameter_list([(1, 2)]).hex() == "001600100000000000000000000000010000000200000000"
