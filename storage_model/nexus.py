"""The I_T nexus: who talks to which target port (SAM-5 4.7.2, RFC 7143 §4.4.4)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ITNexus:
    """One initiator port joined to one target port.

    Reservations and ownership belong to a nexus, never to a session object: a session that logs in again with the
    same initiator name and ISID is the same nexus.

    ``initiator_name`` is the iSCSI name, kept in lower case: names that differ only in case are the same (RFC 7143
    §4.2.7.3), also where a claim or a TransportID spells one. ``isid`` has six bytes; ``target_port`` is the relative
    target port identifier.
    """

    initiator_name: str
    isid: bytes
    target_port: int = 1

    def __post_init__(self) -> None:
        if not self.initiator_name.islower():
            object.__setattr__(self, "initiator_name", self.initiator_name.lower())

    @property
    def initiator_port_name(self) -> str:
        """``<name>,i,0x<isid>`` (RFC 7143 §4.4.4)."""
        return f"{self.initiator_name},i,0x{self.isid.hex()}"

    def __str__(self) -> str:
        return f"{self.initiator_port_name} -> port {self.target_port}"
