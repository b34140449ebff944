import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.frames import Ack, AckKind, Place
from vm_migration.wire.ack import decode_ack, encode_ack
from vm_migration.wire.errors import FrameError
from vm_migration.wire.frame_protobuf import from_ack_message, to_ack_message

u32 = st.integers(0, 2**32 - 1)
places = st.builds(Place, st.uuids(), u32, u32, st.integers(0, 2**64 - 1))
acks = st.builds(Ack, places, st.sampled_from(AckKind), st.integers(0, 2**64 - 1))


@given(acks)
@settings(max_examples=40)
def test_an_answer_survives_the_wire_and_its_twin(ack: Ack) -> None:
    message = encode_ack(ack)
    assert decode_ack(message) == ack
    assert encode_ack(decode_ack(message)) == message
    assert from_ack_message(to_ack_message(ack)) == ack


@given(acks, st.integers(0, 55), st.integers(1, 255))
@settings(max_examples=40)
def test_a_changed_answer_is_refused(ack: Ack, place: int, change: int) -> None:
    message = bytearray(encode_ack(ack))
    message[place] ^= change
    with pytest.raises(FrameError):
        decode_ack(bytes(message))


@given(st.binary(max_size=200))
@settings(max_examples=60)
def test_arbitrary_bytes_are_no_answer(message: bytes) -> None:
    with pytest.raises(FrameError):
        decode_ack(message)


@pytest.mark.parametrize("length", [56, 64, 128])
def test_a_zeroed_answer_means_nothing(length: int) -> None:
    with pytest.raises(FrameError):
        decode_ack(bytes(length))
