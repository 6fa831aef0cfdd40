"""A secret: its bytes, hidden from every text that is made of it, and the rules for where it may come from."""

import shlex

from storage_model.errors import UserError

MIN_SECRET_BYTES = 12
"""96 bits: a shorter one is too weak without IPsec (RFC 7143 §9.2.1)."""
MAX_SECRET_BYTES = 255


class Secret:
    """``value`` are the bytes; repr, str and format never show them, so that no log line or traceback can."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __reduce__(self) -> "tuple[object, ...]":
        raise TypeError("a secret is not written anywhere")


def make_secret(data: bytes, where: str, what: str = "CHAP secret", minimum: int = MIN_SECRET_BYTES) -> Secret:
    """What a file or a variable holds, without its last line end. ``where`` names it in the UserError."""
    value = data.removesuffix(b"\n").removesuffix(b"\r")
    if not minimum <= len(value) <= MAX_SECRET_BYTES:
        raise UserError(
            f"{where}: a {what} has {minimum} to {MAX_SECRET_BYTES} bytes (at least {minimum * 8} bits),"
            f" this one has {len(value)}"
        )
    return Secret(value)


def check_secret_file(*, regular: bool, permissions: int, path: str, where: str) -> None:
    """``permissions`` as stat gives them. A file that others than its owner may read or change is a UserError."""
    if not regular:
        raise UserError(f"{where}: {path} is not a regular file")
    if permissions & 0o077:
        raise UserError(f"{where}: {path} is open to others than its owner: chmod 600 {shlex.quote(path)}")
