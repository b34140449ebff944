"""What is complained of, and what ends that."""

import pytest

from dest_agent.complaints import WAITING, Complaints

MACHINE = "7c1f0f10-0000-4000-8000-000000000001"


@pytest.mark.parametrize("code", [WAITING, "former-source-open"])
def test_what_was_waited_for_is_forgotten_when_nothing_is_waited_for_any_more(code: str) -> None:
    complaints = Complaints()
    complaints.wait(MACHINE, code, "host-a is silent")
    assert complaints.of(MACHINE) == f"{code}: host-a is silent"
    complaints.rest(MACHINE)
    assert complaints.of(MACHINE) == ""


def test_what_a_person_must_look_at_stands_until_it_is_settled() -> None:
    complaints = Complaints()
    complaints.wait(MACHINE, WAITING, "host-a is silent")
    complaints.page(MACHINE, "contradiction", "both own it")
    complaints.rest(MACHINE)
    complaints.go_on(MACHINE)
    assert complaints.of(MACHINE) == "contradiction: both own it"
    complaints.settle(MACHINE)
    complaints.wait(MACHINE, "former-source-open", "host-a is silent")
    complaints.go_on(MACHINE)  # an arrival is heard: its former source is open all the same
    assert complaints.of(MACHINE) == "former-source-open: host-a is silent"
