"""What is read of a record's specification when nothing else of it can be."""

import pytest

from vm_migration.handover.headings import kind_in, name_in
from vm_migration.handover.record import Record
from vm_migration.handover.states import State


@pytest.mark.parametrize(
    ("specification", "name", "kind"),
    [
        ('{"name": "web", "kind": "qemu", "qemu": {"from": "a later release"}}', "web", "qemu"),
        ('{"name": "qat", "memory": {}}', "qat", "model"),
        ("", "", "model"),
        ('{"name": 7}', "", "model"),
        ("[]", "", "model"),
    ],
)
def test_a_machine_has_its_name_and_kind_whatever_else_is_said_of_it(specification: str, name: str, kind: str) -> None:
    machine = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
    record = Record(machine=machine, state=State.RELEASED, specification=specification)
    assert (name_in(record), kind_in(record)) == (name, kind)
