"""What can go wrong in an iSCSI session that we initiate, as its caller sees it."""

from storage_model.errors import PairvolError
from storage_model.spec.iscsi_codes import LoginStatus


class SessionError(PairvolError):
    """The session, or one command of it, failed below SCSI: there is no SCSI status to look at."""


class SessionLost(SessionError):
    """The connection is gone, or cannot be had. Whether commands in flight were executed is unknown."""


class CommandTimeout(SessionError):
    """No answer in time; the task was aborted. Whether it was executed is unknown."""


class CommandRejected(SessionError):
    """The target answered with a Reject, or with a response code other than 'completed' (RFC 7143 §11.4.3, §11.17)."""


class LoginRefused(SessionError):
    """The target refused the login; ``status`` is the Login Response's class << 8 | detail (RFC 7143 §11.13.5)."""

    def __init__(self, status: int) -> None:
        known = status in LoginStatus._value2member_map_
        words = LoginStatus(status).name.replace("_", " ").lower() if known else "unknown reason"
        super().__init__(f"the target refused the login: {words} (status {status:04X}h)")
        self.status = status


class TargetNotTrusted(SessionError):
    """The target did not prove itself (mutual CHAP): whoever it is, it must not get our data."""

    def __init__(self, message: str = "the target does not know the mutual CHAP secret, or has another name") -> None:
        super().__init__(message)


class LoginRedirected(SessionError):
    """The target is to be found at another address (RFC 7143 §11.13.5, class 1); ``address`` is ``host:port``."""

    def __init__(self, address: str) -> None:
        super().__init__(f"the target has moved to {address}")
        self.address = address
