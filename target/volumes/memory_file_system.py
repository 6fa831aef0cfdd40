"""Whether a file lies in memory, where no read or write of it ever waits for a device. [IO]"""

import ctypes

_LIBC = ctypes.CDLL(None, use_errno=True)
_STATFS_BYTES = 256
"""More than struct statfs has on any machine; it begins with f_type, a long (statfs(2))."""
_TMPFS_MAGIC = 0x01021994
_RAMFS_MAGIC = 0x858458F6


def lies_in_memory(descriptor: int) -> bool:
    """True for tmpfs and ramfs. False when the kernel does not say: then the file is taken for one on a disk."""
    status = (ctypes.c_long * (_STATFS_BYTES // ctypes.sizeof(ctypes.c_long)))()
    if _LIBC.fstatfs(ctypes.c_int(descriptor), ctypes.byref(status)) != 0:
        return False
    return int(status[0]) & 0xFFFFFFFF in (_TMPFS_MAGIC, _RAMFS_MAGIC)
