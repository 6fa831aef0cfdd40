"""What a new configuration changes of an array that runs, and what it must not change."""

from dataclasses import dataclass, fields, replace

from storage_model.errors import UserError
from storage_model.spec.scsi_target_port_groups import AccessState
from target.config import ArrayConfig, PairConfig, VolumeConfig
from target.portal_config import PortalGroupConfig, every_group

# Or looked at more closely.
_FREE_OF_ARRAY = ("volumes", "pairs", "portals", "portal_groups", "access", "copy_rate", "source")
_FREE_OF_VOLUME = ("size_bytes",)
_WHERE = {"remote_copy": "[remote_copy]", "broker": "events.broker"}  # else it is array.NAME


@dataclass(frozen=True, slots=True)
class VolumeChanges:
    """Volumes as the new configuration has them, but for ``removed``, which it has not."""

    kept: tuple[VolumeConfig, ...]
    added: tuple[VolumeConfig, ...]
    removed: tuple[VolumeConfig, ...]


def volume_changes(old: ArrayConfig, new: ArrayConfig) -> VolumeChanges:
    """Raises UserError, one line about the first thing that cannot change while the array runs."""
    before = {volume.name: volume for volume in old.volumes}
    after = {volume.name: volume for volume in new.volumes}
    removed = tuple(volume for volume in old.volumes if volume.name not in after)
    _check_pairs(old, new, removed)
    _check_fixed(old, new)
    for volume in new.volumes:
        if volume.name in before:
            _check_same(before[volume.name], volume, new.source)
    freed = {volume.file: volume.name for volume in removed if volume.file is not None}
    added = tuple(volume for volume in new.volumes if volume.name not in before)
    for volume in added:
        if volume.file in freed:
            raise UserError(
                f"{new.source}: volume {volume.name} has the file of {freed[volume.file]}, which is still served:"
                " remove one and add the other in two steps"
            )
    return VolumeChanges(tuple(volume for volume in new.volumes if volume.name in before), added, removed)


def _check_pairs(old: ArrayConfig, new: ArrayConfig, removed: tuple[VolumeConfig, ...]) -> None:
    paired = {pair.volume: pair.name for pair in old.pairs}
    sizes = {volume.name: volume.size_bytes for volume in new.volumes}
    for volume in removed:
        if volume.name in paired:
            raise UserError(
                f"{new.source}: volume {volume.name} belongs to pair {paired[volume.name]}:"
                " it cannot be removed while the array runs"
            )
    for volume in old.volumes:
        if volume.name in paired and volume.size_bytes != sizes[volume.name]:
            raise UserError(
                f"{new.source}: volume {volume.name} belongs to pair {paired[volume.name]}:"
                " its size cannot change while the array runs"
            )
    if _but_for_rates(new) != _but_for_rates(old):
        raise _fixed(new.source, "[[pairs]]")


def _but_for_rates(config: ArrayConfig) -> list[PairConfig]:
    return [replace(pair, copy_rate=None) for pair in config.pairs]


def changed_copy_rates(old: ArrayConfig, new: ArrayConfig) -> dict[str, int | None]:
    """By pair: the rate in its configuration, if that is another one. One that an operator has set stays otherwise."""
    before = {pair.name: pair.copy_rate for pair in old.pairs}
    return {pair.name: pair.copy_rate for pair in new.pairs if pair.copy_rate != before[pair.name]}


def _check_fixed(old: ArrayConfig, new: ArrayConfig) -> None:
    for field in fields(ArrayConfig):
        if field.name not in _FREE_OF_ARRAY and getattr(old, field.name) != getattr(new, field.name):
            raise _fixed(new.source, _WHERE.get(field.name, f"array.{field.name}"))
    before, after = ({group.tag: group.portals for group in _groups(config)} for config in (old, new))
    for tag in sorted(before.keys() | after.keys()):
        if before.get(tag) != after.get(tag):
            raise _fixed(new.source, f"the portals of group {tag}")


def _check_same(before: VolumeConfig, after: VolumeConfig, source: str) -> None:
    for field in fields(VolumeConfig):
        if field.name not in _FREE_OF_VOLUME and getattr(before, field.name) != getattr(after, field.name):
            # Without numbers of its own a volume has its place's, which a volume removed before it changes.
            kept = f" (lun = {before.lun} and ldev = {before.ldev} keep its numbers)"
            hint = kept if field.name in ("lun", "ldev") else ""
            raise _fixed(source, f"{field.name} of volume {after.name}", hint)


def _fixed(source: str, what: str, hint: str = "") -> UserError:
    return UserError(f"{source}: {what} cannot change while the array runs{hint}")


def _groups(config: ArrayConfig) -> tuple[PortalGroupConfig, ...]:
    return every_group(config.portals, config.portal_groups)


def state_changes(old: ArrayConfig, new: ArrayConfig) -> dict[int, AccessState]:
    """The groups whose configured access state is another one. One that a host has set stays, if the file did."""
    before = {group.tag: group.access_state for group in _groups(old)}
    return {group.tag: group.access_state for group in _groups(new) if before.get(group.tag) is not group.access_state}


def checked_growth(config: VolumeConfig, size_bytes: int, file_bytes: int, source: str, pair: str | None) -> int:
    """The size that a volume of ``size_bytes`` shall have; ``file_bytes``: what its file has.

    Raises UserError for what is no growth.
    """
    wanted = file_bytes if config.size_bytes is None else config.size_bytes
    where = f"{source}: volume {config.name}"
    if wanted == size_bytes and file_bytes == size_bytes:
        return size_bytes
    if pair is not None:
        raise UserError(f"{where} belongs to pair {pair}: its size cannot change while the array runs")
    if wanted < size_bytes:
        raise UserError(f"{where} has {size_bytes} bytes, not {wanted}: a volume cannot shrink")
    if wanted < file_bytes:
        raise UserError(f"{where} shall have {wanted} bytes, but its file has {file_bytes}")
    if wanted % config.block_length:
        raise UserError(f"{where}: {wanted} bytes are not a whole number of {config.block_length}-byte blocks")
    return wanted
