"""Which role may make which call: one table, deny by default. docs/security.md shows it, generated from here.

The certificate answers who somebody is; that a host may send the pages of this one attempt is the ticket's to say.
"""

from dataclasses import dataclass
from typing import Final

from vm_migration.errors import Unauthorised
from vm_migration.link.identity import Identity, Role

_API: Final = "/vm_migration.api.v1."
_EVERYBODY: Final = frozenset(Role)
_READERS: Final = frozenset({Role.ORCHESTRATOR, Role.OPERATOR, Role.VIEWER})
_DRIVERS: Final = frozenset({Role.ORCHESTRATOR, Role.OPERATOR})
_OPERATORS: Final = frozenset({Role.OPERATOR})
"""A copy that may miss writes runs on a person's word only."""
_HOSTS: Final = frozenset({Role.HOST})


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may make a call, whether it changes anything, and what must hold beside the role, for the page.

    With a number in the field `holds` of its request, a look has a machine held, or a host measured, for so long.
    """

    roles: frozenset[Role]
    changes: bool = True
    also: str = ""
    holds: str = ""


_ANY_HOST: Final = "any host: recovery asks all of them"
_SOURCE: Final = "a host: the attempt's source"
_READ: Final = Rule(_READERS, changes=False)
_DRIVE: Final = Rule(_DRIVERS)

MEASURES: Final = f"{_API}Machines/MeasureDirtyRate"
"""Who may make this call may have a machine held for a measurement."""
RULES: Final[dict[str, Rule]] = {
    f"{_API}Host/DescribeHost": Rule(_EVERYBODY, changes=False),
    f"{_API}Host/ListCustodies": _READ,
    f"{_API}Machines/ListMachines": _READ,
    f"{_API}Machines/GetMachine": _READ,
    f"{_API}Machines/CreateMachine": _DRIVE,
    f"{_API}Machines/PauseMachine": _DRIVE,
    f"{_API}Machines/ResumeMachine": _DRIVE,
    f"{_API}Machines/DestroyMachine": _DRIVE,
    f"{_API}Machines/SuspendMachine": _DRIVE,
    f"{_API}Machines/WakeMachine": _DRIVE,
    MEASURES: _DRIVE,  # the machine is held meanwhile, and runs slower
    f"{_API}Source/CheckOutgoing": Rule(
        _READERS, changes=False, also="with a measurement: who may MeasureDirtyRate", holds="measure_ms"
    ),
    f"{_API}Source/GetAttempt": _READ,
    f"{_API}Source/Watch": _READ,
    f"{_API}Source/Begin": _DRIVE,
    f"{_API}Source/CheckUpdate": _READ,
    f"{_API}Source/BeginUpdate": _DRIVE,
    f"{_API}Source/Start": _DRIVE,
    f"{_API}Source/Cancel": _DRIVE,
    f"{_API}Source/Force": _DRIVE,
    f"{_API}Source/Tune": _DRIVE,
    f"{_API}Source/DescribeOutgoing": Rule(_EVERYBODY, changes=False, also=_ANY_HOST),
    f"{_API}Source/Recover": _DRIVE,
    f"{_API}Source/Take": Rule(_OPERATORS, also="`recover --fenced`"),
    f"{_API}Destination/CheckIncoming": Rule(
        _READERS, changes=False, also="with a measurement: who may MeasureDirtyRate", holds="measure_ms"
    ),
    f"{_API}Destination/DescribeIncoming": Rule(_EVERYBODY, changes=False, also=_ANY_HOST),
    f"{_API}Destination/Prepare": _DRIVE,
    # The source agent's, beside the pages.
    f"{_API}Destination/OpenRound": Rule(_HOSTS, also=_SOURCE),
    f"{_API}Destination/ListenForStream": Rule(_HOSTS, also=f"{_SOURCE}, its ticket"),
    f"{_API}Destination/Finish": Rule(_HOSTS, also=_SOURCE),
    # The source's, or the orchestrator's when the two hosts cannot reach each other.
    f"{_API}Destination/Handoff": Rule(_DRIVERS | _HOSTS, also=f"the handover's secret; {_SOURCE}"),
    f"{_API}Destination/Discard": Rule(_DRIVERS | _HOSTS, also=f"proof of its end; {_SOURCE}"),
    f"{_API}Destination/NoteRetired": Rule(_DRIVERS | _HOSTS, also=f"{_SOURCE}; in its place: an operator only"),
    f"{_API}Destination/Recover": _DRIVE,
    f"{_API}Destination/Take": Rule(_OPERATORS, also="`recover --fenced`"),
    f"{_API}Bulk/Send": Rule(_HOSTS, also=f"{_SOURCE}, its ticket, each stream once; direct streams too"),
    f"{_API}MachineStream/Carry": Rule(_HOSTS, also=f"{_SOURCE}, its ticket, each connection once and in its turn"),
    # The orchestrator's daemon.
    f"{_API}Orchestrator/ListAttempts": _READ,
    f"{_API}Orchestrator/GetAttempt": _READ,
    f"{_API}Orchestrator/WatchAttempt": _READ,
    f"{_API}Orchestrator/SubmitMigration": _DRIVE,
    f"{_API}Orchestrator/SubmitUpdate": _DRIVE,
    f"{_API}Orchestrator/CancelAttempt": _DRIVE,
    f"{_API}Orchestrator/ForceAttempt": _DRIVE,
    f"{_API}Orchestrator/TuneAttempt": _DRIVE,
    f"{_API}Orchestrator/ListEvacuations": _READ,
    f"{_API}Orchestrator/GetEvacuation": _READ,
    f"{_API}Orchestrator/WatchEvacuation": _READ,
    f"{_API}Orchestrator/SubmitEvacuation": _DRIVE,
    f"{_API}Orchestrator/CancelEvacuation": _DRIVE,
    f"{_API}Orchestrator/GetMaintenance": _READ,
    f"{_API}Orchestrator/SetMaintenance": _DRIVE,
}
SERVICES: Final[dict[str, Rule]] = {
    "/grpc.health.v1.Health": Rule(_EVERYBODY, changes=False),
    "/grpc.reflection.v1alpha.ServerReflection": Rule(_EVERYBODY, changes=False),
}
"""Services all of whose calls have one rule."""
_NOBODY: Final = Rule(frozenset())


def rule_of(method: str) -> Rule:
    """Return the rule of a method, given as `/package.Service/Method`; one that has none is nobody's."""
    service, _, _ = method.rpartition("/")
    return RULES.get(method, SERVICES.get(service, _NOBODY))


def permitted(role: Role, method: str) -> bool:
    """Return whether a role may call a method."""
    return role in rule_of(method).roles


def may_measure(peer: Identity | None) -> bool:
    """Return whether a peer may have a host measure for a moment; one of no identity, on loopback, may."""
    return peer is None or permitted(peer.role, MEASURES)


def has_effect(method: str, request: object, peer: Identity | None) -> bool:
    """Return whether a call changes something, or holds a machine for a while, where its peer may have that."""
    rule = rule_of(method)
    if rule.changes:
        return True
    return bool(rule.holds and getattr(request, rule.holds)) and may_measure(peer)


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
