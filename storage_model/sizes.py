"""Sizes and rates as people write them, in configurations and on command lines."""

import re

from storage_model.errors import UserError

MAX_SIZE_BYTES = 1 << 60
MINIMUM_COPY_RATE = 64 << 10
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}
_SIZE = re.compile(r"([0-9]{1,19})\s*([A-Za-z]*)")


def parse_size(text: str, where: str) -> int:
    """``256MiB`` and the like to bytes; ``where`` names the place in an error."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS:
        units = ", ".join(unit for unit in _UNITS if unit)
        raise UserError(f"{where}: {text!r} is not a size (a number and one of {units})")
    size = int(match[1]) * _UNITS[match[2]]
    if not 0 < size <= MAX_SIZE_BYTES:
        raise UserError(f"{where}: {text} is out of range (more than 0, at most 1024 PiB)")
    return size


def parse_copy_rate(text: str, where: str) -> int:
    """Bytes per second; 0 for ``unlimited``. Below the minimum a region would take longer than the link waits for."""
    if text.strip() == "unlimited":
        return 0
    rate = parse_size(text, where)
    if rate < MINIMUM_COPY_RATE:
        raise UserError(f"{where}: {text} a second is too slow (at least 64KiB, or unlimited)")
    return rate
