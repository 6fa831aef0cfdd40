"""CHAP on a command line: the options, and secrets from files that only their owner can read. [IO]"""

import argparse
import os
import stat

from initiator_shim.initiator_chap import ChapCredentials
from storage_model.errors import UserError
from storage_model.secret import MAX_SECRET_BYTES, Secret, check_secret_file, make_secret

_TEXTS = {
    "--chap-user": ("NAME", "log in to the array with CHAP under this name"),
    "--chap-secret-file": ("FILE", "and the secret in this file, which only its owner may read"),
    "--chap-secret-env": ("NAME", "or in this variable of the environment"),
    "--mutual-user": ("NAME", "the array must prove itself, too, under this name (mutual CHAP)"),
    "--mutual-secret-file": ("FILE", "the array's secret"),
    "--mutual-secret-env": ("NAME", "the array's secret"),
}


def add_chap_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    for flag, (metavar, text) in _TEXTS.items():
        parser.add_argument(flag, metavar=metavar, help=text, default=default)


def chap_credentials(given: argparse.Namespace) -> ChapCredentials | None:
    """What the options of :func:`add_chap_arguments` say; None: no CHAP. Raises UserError."""
    own = _account("--chap", given.chap_user, given.chap_secret_file, given.chap_secret_env)
    target = _account("--mutual", given.mutual_user, given.mutual_secret_file, given.mutual_secret_env)
    if own is None:
        if target is not None:
            raise UserError("--mutual-user: an array proves itself only to who does, too: --chap-user is missing")
        return None
    try:
        return ChapCredentials(*own, *(target or (None, None)))
    except UserError as error:
        raise UserError(f"--mutual-secret: {error}") from None


def _account(flag: str, user: str | None, file: str | None, variable: str | None) -> tuple[str, Secret] | None:
    if user is None:
        if file is not None or variable is not None:
            raise UserError(f"{flag}-user is missing: a secret is somebody's")
        return None
    if (file is None) == (variable is None):
        raise UserError(f"{flag}-secret-file or {flag}-secret-env must say where the secret is")
    if file is not None:
        return user, _from_file(file, f"{flag}-secret-file")
    assert variable is not None
    value = os.environb.get(variable.encode())
    if value is None:
        raise UserError(f"{flag}-secret-env: the environment has no variable {variable}")
    return user, make_secret(value, f"{flag}-secret-env {variable}")


def _from_file(path: str, flag: str) -> Secret:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not stop us
        try:
            mode = os.fstat(descriptor).st_mode
            check_secret_file(regular=stat.S_ISREG(mode), permissions=stat.S_IMODE(mode), path=path, where=flag)
            data = os.read(descriptor, MAX_SECRET_BYTES + 3)  # a line end, and one byte that is too many
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror}") from None
    return make_secret(data, f"{flag} {path}")
