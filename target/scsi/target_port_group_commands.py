"""REPORT TARGET PORT GROUPS and SET TARGET PORT GROUPS (SPC-4 6.37, 6.45). [C]"""

from storage_model.spec.scsi_target_port_groups import (
    EXTENDED_HEADER,
    SET_DESCRIPTOR_LENGTH,
    SET_HEADER_LENGTH,
    SETTABLE_STATES,
    AccessState,
    decode_set_descriptors,
    encode_target_port_groups,
)
from target.scsi.command_context import CommandContext, invalid_field, invalid_parameter
from target.scsi.task import TaskOutcome


async def report_target_port_groups(context: CommandContext) -> TaskOutcome:
    """Every group of the target, whatever state it is in, in the header format that the CDB asks for."""
    cdb = context.cdb
    extended = cdb[1] >> 5 == EXTENDED_HEADER
    groups = context.server.port_groups.descriptors()
    data = encode_target_port_groups(groups, extended_header=extended)
    return context.data_in(data, int.from_bytes(cdb[6:10], "big"))


async def set_target_port_groups(context: CommandContext) -> TaskOutcome:
    """Explicit asymmetric access: all descriptors are checked before the first one changes anything."""
    length = int.from_bytes(context.cdb[6:10], "big")
    if not length:
        return TaskOutcome()
    if length < SET_HEADER_LENGTH or (length - SET_HEADER_LENGTH) % SET_DESCRIPTOR_LENGTH:
        raise invalid_field(6)
    groups = context.server.port_groups
    if length > SET_HEADER_LENGTH + len(groups) * SET_DESCRIPTOR_LENGTH:
        raise invalid_field(6)  # more descriptors than groups: at least one would be there twice
    states: dict[int, AccessState] = {}
    for number, (group, state) in enumerate(decode_set_descriptors(bytes(context.parameter_list(length)))):
        offset = SET_HEADER_LENGTH + number * SET_DESCRIPTOR_LENGTH
        if state not in SETTABLE_STATES:  # offline and transitioning are no states to ask for (SPC-4 table 351)
            raise invalid_parameter(offset)
        if group not in groups or group in states:
            raise invalid_parameter(offset + 2)
        states[group] = AccessState(state)
    context.server.set_access_states(states, by=context.task.nexus)
    return TaskOutcome(transfer_length_bytes=length)
