"""Which role may make which call: one table, deny by default.

The certificate answers who somebody is; that a host may send the pages of this one attempt is the ticket's to say.
"""

from typing import Final

from vm_migration.errors import Unauthorised
from vm_migration.link.identity import Identity, Role

_API: Final = "/vm_migration.api.v1."
_EVERYBODY: Final = frozenset(Role)
_READERS: Final = _EVERYBODY
_DRIVERS: Final = frozenset({Role.ORCHESTRATOR, Role.OPERATOR})
_OPERATORS: Final = frozenset({Role.OPERATOR})
"""A copy that may miss writes runs on a person's word only."""
_DRIVERS_AND_HOSTS: Final = _DRIVERS | {Role.HOST}
_HOSTS: Final = frozenset({Role.HOST})

_METHODS: Final[dict[str, frozenset[Role]]] = {
    f"{_API}Host/DescribeHost": _READERS,
    f"{_API}Host/ListCustodies": _READERS,
    f"{_API}Machines/ListMachines": _READERS,
    f"{_API}Machines/GetMachine": _READERS,
    f"{_API}Machines/CreateMachine": _DRIVERS,
    f"{_API}Machines/PauseMachine": _DRIVERS,
    f"{_API}Machines/ResumeMachine": _DRIVERS,
    f"{_API}Machines/DestroyMachine": _DRIVERS,
    f"{_API}Machines/MeasureDirtyRate": _DRIVERS,  # the machine is held meanwhile, and runs slower
    f"{_API}Source/CheckOutgoing": _READERS,
    f"{_API}Source/GetAttempt": _READERS,
    f"{_API}Source/Watch": _READERS,
    f"{_API}Source/Begin": _DRIVERS,
    f"{_API}Source/Start": _DRIVERS,
    f"{_API}Source/Cancel": _DRIVERS,
    f"{_API}Source/Force": _DRIVERS,
    f"{_API}Source/Tune": _DRIVERS,
    f"{_API}Source/DescribeOutgoing": _READERS,
    f"{_API}Source/Recover": _DRIVERS,
    f"{_API}Source/Take": _OPERATORS,
    f"{_API}Destination/CheckIncoming": _READERS,
    f"{_API}Destination/DescribeIncoming": _READERS,
    f"{_API}Destination/Prepare": _DRIVERS,
    # The source agent's, beside the pages.
    f"{_API}Destination/OpenRound": _HOSTS,
    f"{_API}Destination/Finish": _HOSTS,
    # The source's, or the orchestrator's when the two hosts cannot reach each other.
    f"{_API}Destination/Handoff": _DRIVERS_AND_HOSTS,
    f"{_API}Destination/Discard": _DRIVERS_AND_HOSTS,
    f"{_API}Destination/NoteRetired": _DRIVERS_AND_HOSTS,
    f"{_API}Destination/Recover": _DRIVERS,
    f"{_API}Destination/Take": _OPERATORS,
    # The orchestrator's daemon.
    f"{_API}Orchestrator/ListAttempts": _READERS,
    f"{_API}Orchestrator/GetAttempt": _READERS,
    f"{_API}Orchestrator/WatchAttempt": _READERS,
    f"{_API}Orchestrator/SubmitMigration": _DRIVERS,
    f"{_API}Orchestrator/CancelAttempt": _DRIVERS,
    f"{_API}Orchestrator/ForceAttempt": _DRIVERS,
    f"{_API}Orchestrator/TuneAttempt": _DRIVERS,
}
_SERVICES: Final[dict[str, frozenset[Role]]] = {
    f"{_API}Bulk": _HOSTS,
    "/grpc.health.v1.Health": _EVERYBODY,
    "/grpc.reflection.v1alpha.ServerReflection": _EVERYBODY,
}


def permitted(role: Role, method: str) -> bool:
    """Return whether a role may call a method, given as `/package.Service/Method`."""
    service, _, _ = method.rpartition("/")
    return role in _METHODS.get(method, _SERVICES.get(service, frozenset()))


def authorise(site: str, method: str, peer: Identity | None) -> None:
    """Let a call through.

    Raises:
        Unauthorised: The peer is of another site, or its role may not make this call.
    """
    if peer is None:
        raise Unauthorised("no-identity", "The peer showed no certificate", "Configure [tls] on both sides")
    if peer.site != site:
        raise Unauthorised("other-site", f"{peer.uri} is not of site {site}", "Use a certificate of this site")
    if not permitted(peer.role, method):
        raise Unauthorised("role", f"{peer.uri} may not call {method}", "Use a certificate with the role for it")


def authorise_nobody_in_particular(method: str, peer: Identity | None) -> None:
    """Let every call through: a plaintext server on loopback has no identities to tell apart."""
