"""Where a differential bitmap survives a crash: one file per pair half. [IO]

Pages are written in place. A page torn by a crash can only lose marks that were being set, whose writes had not been
started, or that were being cleared lazily; 512-byte pages are sector-sized, so that in practice none is torn.
"""

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage_model.differential_bitmap import PAGE_BYTES, DifferentialBitmap
from storage_model.errors import UserError
from storage_model.volume import MediumFailure


class BitmapFile:
    """Implements ``region_marks.MarkStore``."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, "bitmap")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        self._path = path

    def load(self, bitmap: DifferentialBitmap) -> bool:
        """Take over what was saved; False if nothing was, because the file is new."""
        saved = os.pread(self._file, os.fstat(self._file).st_size, 0)
        if not saved:
            os.posix_fallocate(self._file, 0, len(bitmap.to_bytes()))  # a full disk must not come between
            os.fsync(self._file)
            return False
        try:
            bitmap.load(saved)
        except ValueError as error:
            raise UserError(f"{self._path}: {error}; the volume's size must not change while it is paired") from None
        return True

    async def save(self, pages: Mapping[int, bytes]) -> None:
        """Durable on return; raises MediumFailure: a write whose mark cannot be kept must not be made."""
        if not pages:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._save, pages)
        except OSError as error:
            raise MediumFailure(f"{self._path}: {error.strerror}") from error

    def _save(self, pages: Mapping[int, bytes]) -> None:
        for page, data in sorted(pages.items()):
            os.pwrite(self._file, data, page * PAGE_BYTES)
        os.fdatasync(self._file)

    def close(self) -> None:
        """Waits for what is under way."""
        self._thread.shutdown()
        os.close(self._file)
