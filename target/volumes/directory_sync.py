"""Makes it durable that a file has been made, linked or removed. [IO]"""

import os
from pathlib import Path


def sync_parent_directory(path: Path) -> None:
    """Of the file ``path``; fsync of the file itself does not keep its name (fsync(2)). Blocks; raises OSError."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
