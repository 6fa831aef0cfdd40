"""What can go wrong, kept apart by who is at fault.

A handler raises; one place per layer turns the exception into what the peer sees: ``target.scsi.device_server`` makes
status and sense from :class:`CheckCondition`, the iSCSI connection makes a Reject or a Login Response from
:class:`RemoteProtocolError`.
"""


class PairvolError(Exception):
    """Base of every error that pairvol raises on purpose."""


class UserError(PairvolError):
    """The configuration or the command line is wrong: one clear line for the user, exit status 2."""


class LocalProtocolError(PairvolError):
    """Our own side used a protocol machine in a way its state does not allow."""


class RemoteProtocolError(PairvolError):
    """The peer broke the protocol.

    ``reason`` is the wire code that the peer will see: a Reject reason (RFC 7143 §11.17.1), or a Login status
    (class << 8 | detail, §11.13.5), whichever the raising layer documents.
    """

    def __init__(self, message: str, reason: int) -> None:
        super().__init__(message)
        self.reason = reason


class CheckCondition(PairvolError):
    """A SCSI command ends with CHECK CONDITION.

    ``asc_ascq`` is one 16-bit number, ASC in the high byte. ``information`` fills the sense INFORMATION field
    (an LBA or a count, as the ASC says); ``field_pointer`` is the byte of the CDB or, with ``in_parameter_list``, of
    the parameter list that is in error (SPC-4 4.5.2.4.2), ``bit_pointer`` the leftmost bit of the field in that byte.
    ``progress`` is the progress indication of what keeps the unit from being ready, in 65536ths (SPC-4 4.5.2.4.4).
    """

    def __init__(
        self,
        sense_key: int,
        asc_ascq: int,
        *,
        information: int | None = None,
        field_pointer: int | None = None,
        in_parameter_list: bool = False,
        bit_pointer: int | None = None,
        progress: int | None = None,
    ) -> None:
        super().__init__(f"sense key {sense_key:X}h, ASC/ASCQ {asc_ascq >> 8:02X}h/{asc_ascq & 0xFF:02X}h")
        self.sense_key = sense_key
        self.asc_ascq = asc_ascq
        self.information = information
        self.field_pointer = field_pointer
        self.in_parameter_list = in_parameter_list
        self.bit_pointer = bit_pointer
        self.progress = progress
