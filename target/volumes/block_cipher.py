"""AES-256-XTS, the cipher for storage (IEEE 1619). [IO]

Each logical block is one data unit and its number is the tweak: equal blocks differ on the medium, and any block can be
read alone.
"""

from storage_model.errors import UserError
from storage_model.volume import Buffer

try:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
except ImportError:  # only encrypted volumes need it
    AVAILABLE = False
else:
    AVAILABLE = True

KEY_BYTES = 64
"""Two AES-256 keys."""


class BlockCipher:
    """``key`` has ``KEY_BYTES``, its halves unequal. Raises UserError where the library is missing."""

    def __init__(self, key: bytes, block_length: int) -> None:
        assert len(key) == KEY_BYTES
        if not AVAILABLE:
            raise UserError("an encrypted volume needs the package cryptography (pip install 'pairvol[encryption]')")
        self._key = algorithms.AES(key)
        self._block_length = block_length

    def encrypt(self, first_block: int, data: Buffer) -> bytearray:
        """Whole blocks, numbered from ``first_block`` on."""
        view, length, result = memoryview(data), self._block_length, bytearray()
        for at in range(0, len(view), length):
            result += self._cipher(first_block + at // length).encryptor().update(view[at : at + length])
        return result

    def decrypt(self, first_block: int, data: Buffer) -> bytearray:
        """The same, back."""
        view, length, result = memoryview(data), self._block_length, bytearray()
        for at in range(0, len(view), length):
            result += self._cipher(first_block + at // length).decryptor().update(view[at : at + length])
        return result

    def _cipher(self, block: int) -> "Cipher[modes.XTS]":
        return Cipher(self._key, modes.XTS(block.to_bytes(16, "little")))
