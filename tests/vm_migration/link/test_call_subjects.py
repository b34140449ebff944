"""What a call's log lines say that it is about."""

from vm_migration.api.v1 import destination_pb2, machine_pb2, source_pb2, types_pb2
from vm_migration.link.subject import subject_of

KEY = types_pb2.AttemptKey(machine="m", attempt="a", epoch=3, term=2)


def test_an_attempt_s_calls_tell_all_three() -> None:
    whole = {"machine": "m", "attempt": "a", "epoch": 3}
    assert subject_of(source_pb2.StartRequest(key=KEY)) == whole
    assert subject_of(destination_pb2.HandoffRequest(key=KEY, secret=b"hidden")) == whole


def test_an_epoch_that_is_yet_to_be_drawn_is_not_told() -> None:
    begin = source_pb2.BeginRequest(key=types_pb2.AttemptKey(machine="m", attempt="a"))
    assert subject_of(begin) == {"machine": "m", "attempt": "a"}


def test_a_machine_s_calls_tell_the_machine() -> None:
    assert subject_of(machine_pb2.MachineRequest(machine="web-1")) == {"machine": "web-1"}


def test_whoever_sends_much_is_cut_short() -> None:
    assert subject_of(types_pb2.MachineName(machine="m" * 10_000)) == {"machine": "m" * 256}


def test_streams_and_other_requests_tell_nothing() -> None:
    assert subject_of(object()) == {}
    assert subject_of(types_pb2.Empty()) == {}
