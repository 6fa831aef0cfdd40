"""What the page cache has of a file. [IO]"""

import ctypes
import errno

PAGE_BYTES = 4096
_CACHESTAT = 451
"""The number of cachestat(2) on every architecture; Linux 6.5 has it."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_CachestatRange = ctypes.c_uint64 * 2  # off, len
_Cachestat = ctypes.c_uint64 * 5  # nr_cache, and what else it counts: pages


class PageCache:
    """Of one open file. Not for threads: what the kernel answers lands in the same place every time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = ctypes.c_uint(descriptor)
        self._range = _CachestatRange()
        self._answer = _Cachestat()
        self._arguments = (ctypes.c_long(_CACHESTAT), self._descriptor, ctypes.byref(self._range))
        self.can_tell = True
        """False as soon as the kernel has said that it does not tell: too old, or the file is not ours."""

    def has(self, offset_bytes: int, length_bytes: int) -> bool:
        """Whether it has all of it now; False as well when it cannot be known."""
        if not self.can_tell:
            return False
        self._range[0], self._range[1] = offset_bytes, length_bytes
        if _LIBC.syscall(*self._arguments, ctypes.byref(self._answer), ctypes.c_uint(0)) != 0:
            self.can_tell = ctypes.get_errno() == errno.EINTR
            return False
        first, last = offset_bytes // PAGE_BYTES, (offset_bytes + length_bytes - 1) // PAGE_BYTES
        return self._answer[0] == last - first + 1
