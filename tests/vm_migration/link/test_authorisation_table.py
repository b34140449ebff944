"""Every call of the contract has its row; what has none is refused to everybody."""

import pytest

from tests.vm_migration.link.contract import METHODS, TWIN
from vm_migration.errors import Unauthorised
from vm_migration.link.authorisation import authorise, permitted
from vm_migration.link.identity import Identity, Role

READS = {
    "DescribeHost",
    "DescribeOutgoing",
    "ListCustodies",
    "ListMachines",
    "GetMachine",
    "CheckOutgoing",
    "CheckUpdate",
    "GetAttempt",
    "Watch",
    "CheckIncoming",
    "DescribeIncoming",
    "ListAttempts",
    "WatchAttempt",
    "ListEvacuations",
    "GetEvacuation",
    "WatchEvacuation",
    "GetMaintenance",
}


@pytest.mark.parametrize("method", METHODS)
def test_every_call_is_somebodys(method: str) -> None:
    assert any(permitted(role, method) for role in Role)


@pytest.mark.parametrize("method", METHODS)
def test_a_viewer_reads_and_nothing_else(method: str) -> None:
    assert permitted(Role.VIEWER, method) is (method.rpartition("/")[2] in READS)


@pytest.mark.parametrize("role", list(Role))
def test_hosts_alone_send_pages(role: Role) -> None:
    for method in ("Bulk/Send", "Destination/OpenRound", "Destination/Finish"):
        assert permitted(role, f"/vm_migration.api.v1.{method}") is (role is Role.HOST)


@pytest.mark.parametrize("role", list(Role))
def test_hosts_do_not_command_each_other(role: Role) -> None:
    for method in ("Source/Begin", "Source/Cancel", "Destination/Prepare", "Machines/DestroyMachine"):
        assert permitted(role, f"/vm_migration.api.v1.{method}") is (role in {Role.ORCHESTRATOR, Role.OPERATOR})


@pytest.mark.parametrize("method", ["", "/", "/vm_migration.api.v1.Source/Erase", "/other.Service/Call", "Begin", TWIN])
def test_what_has_no_row_is_refused(method: str) -> None:
    assert not any(permitted(role, method) for role in Role)


def test_a_certificate_of_another_site_is_good_for_nothing() -> None:
    with pytest.raises(Unauthorised) as caught:
        authorise("home", "/vm_migration.api.v1.Source/Begin", Identity("away", Role.OPERATOR, "anna"))
    assert caught.value.code == "other-site"
    with pytest.raises(Unauthorised):
        authorise("home", "/vm_migration.api.v1.Source/Begin", None)
