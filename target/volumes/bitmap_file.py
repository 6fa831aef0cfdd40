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
from target.volumes.directory_sync import sync_parent_directory


class BitmapFile:
    """Implements ``region_marks.MarkStore``."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, "bitmap")
        self._path = path
        self._file = -1

    def load(self, bitmap: DifferentialBitmap, *, paired: bool) -> bool:
        """Take over what was saved; False if there was nothing: then every region of a pair counts as different.

        That is on the medium before the file has its name: a start that ends here leaves none behind that says less.
        """
        try:
            saved = self._path.read_bytes() if self._path.exists() else b""
            if not saved:
                if paired:
                    bitmap.mark_all()
                self._create(bitmap.to_bytes())
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            bitmap.load(saved or bitmap.to_bytes())
            os.fdatasync(
                self._file
            )  # a mark that was being saved may be in the page cache only; it is trusted from here
        except OSError as error:
            raise UserError(f"{self._path}: {error.strerror}") from None
        except ValueError as error:
            raise UserError(f"{self._path}: {error}; the volume's size must not change while it is paired") from None
        return bool(saved)

    def _create(self, bits: bytes) -> None:
        """Written out, not left as a hole: a full disk must not come between a mark and its page."""
        new = self._path.with_name(self._path.name + ".new")
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(file, "wb") as stream:
            stream.write(bits)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(self._path)
        sync_parent_directory(self._path)

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
        if self._file >= 0:
            os.close(self._file)
