"""Secrets come from files that only their owner can read, or from the environment, and go into access rules. [IO]"""

import os
import stat
from collections.abc import Sequence

from storage_model.errors import UserError
from storage_model.secret import MAX_SECRET_BYTES, MIN_SECRET_BYTES, Secret, check_secret_file, make_secret
from target.access_config import AccessConfig, AccountConfig, SecretSource
from target.iscsi.access import AccessRule
from target.iscsi.chap import ChapAccount
from target.scsi.lun_mask import LunMask


def load_access_rules(configs: Sequence[AccessConfig]) -> tuple[AccessRule, ...]:
    """The rules with their secrets, read now. Raises UserError, which names places and never a secret."""
    rules = tuple(
        AccessRule(
            config.initiator,
            config.addresses,
            None if config.luns is None and not config.read_only else _mask(config),
            _account(config.chap),
            _account(config.mutual),
        )
        for config in configs
    )
    _check_directions(configs, rules)
    return rules


def _mask(config: AccessConfig) -> LunMask:
    return LunMask(None if config.luns is None else frozenset(config.luns), config.read_only)


def _account(config: AccountConfig | None) -> ChapAccount | None:
    return None if config is None else ChapAccount(config.user, read_secret(config.secret))


def _check_directions(configs: Sequence[AccessConfig], rules: Sequence[AccessRule]) -> None:
    """No secret may serve both directions: the target would answer an initiator's challenge (RFC 7143 §9.2.1)."""
    initiators = {rule.chap.secret: config.where for rule, config in zip(rules, configs, strict=True) if rule.chap}
    for rule, config in zip(rules, configs, strict=True):
        if rule.mutual is not None and rule.mutual.secret in initiators:
            other = initiators[rule.mutual.secret]
            raise UserError(f"{config.where}: the mutual secret is also the CHAP secret of {other}: they must differ")


def read_secret(source: SecretSource, what: str = "CHAP secret", minimum: int = MIN_SECRET_BYTES) -> Secret:
    """Raises UserError."""
    if source.variable is not None:
        value = os.environb.get(source.variable.encode())
        if value is None:
            raise UserError(f"{source.where}: the environment has no variable {source.variable}")
        return make_secret(value, f"{source.where}: {source.variable}", what, minimum)
    assert source.file is not None
    data = read_secret_file(
        source.file, source.where, MAX_SECRET_BYTES + 3
    )  # a line end, and one byte that is too many
    return make_secret(data, f"{source.where}: {source.file}", what, minimum)


def read_secret_file(path: str, where: str, limit: int) -> bytes:
    """Up to ``limit`` bytes of a file that only its owner can read; raises UserError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not stop us
        try:
            status = os.fstat(descriptor)
            check_secret_file(
                regular=stat.S_ISREG(status.st_mode),
                permissions=stat.S_IMODE(status.st_mode),
                path=path,
                where=where,
            )
            return os.read(descriptor, limit)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"{where}: {path}: {error.strerror}") from None
