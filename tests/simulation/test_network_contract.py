"""What Viaduct relies on of a channel holds for the simulated network as for real gRPC."""

import asyncio
import contextlib
from collections.abc import Callable

import grpc
import grpc.aio
import pytest

from tests.simulation.answering import Scenario, Serve, over_loopback, over_simulation
from vm_migration.api.v1 import destination_pb2, source_pb2
from vm_migration.api.v1.destination_pb2_grpc import DestinationStub
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.errors import AttemptFailed, InternalError, Refused, Stale, Unreachable
from vm_migration.link.call import call, stream

PEER = "host-b (peer)"
Over = Callable[[Scenario], None]

over_both = pytest.mark.parametrize("over", [over_loopback, over_simulation])


def nothing() -> None:
    pass


async def check(channel: grpc.aio.Channel, deadline: float = 10.0) -> None:
    method = DestinationStub(channel).CheckIncoming
    await call(method, destination_pb2.CheckIncomingRequest(source="plain"), peer=PEER, deadline=deadline)


async def watch(channel: grpc.aio.Channel, seen: list[int], silence: float) -> None:
    request = source_pb2.AttemptRequest()
    async for report in stream(SourceStub(channel).Watch, request, peer=PEER, silence=silence):
        seen.append(report.sequence)  # noqa: PERF401 - a comprehension would lose what came before the failure


@over_both
def test_a_call_is_answered_and_may_be_made_again(over: Over) -> None:
    async def scenario(serve: Serve) -> None:
        async with serve(nothing, False) as peer:
            await check(peer.channel)
            await check(peer.channel)

    over(scenario)


@over_both
def test_an_error_crosses_as_itself(over: Over) -> None:
    def act() -> None:
        raise Stale("stale-epoch", "Older: Grüße", "Ask again")

    async def scenario(serve: Serve) -> None:
        async with serve(act, False) as peer:
            with pytest.raises(Stale) as caught:
                await check(peer.channel)
            assert (caught.value.code, caught.value.message, caught.value.hint) == (
                "stale-epoch",
                "Older: Grüße",
                "Ask again",
            )

    over(scenario)


@over_both
def test_a_fault_of_ours_crosses_without_its_text(over: Over) -> None:
    def act() -> None:
        raise KeyError("swordfish")

    async def scenario(serve: Serve) -> None:
        async with serve(act, False) as peer:
            with pytest.raises(InternalError) as caught:
                await check(peer.channel)
            assert "swordfish" not in caught.value.message

    over(scenario)


@over_both
def test_a_call_that_nobody_implements_is_not_offered(over: Over) -> None:
    async def scenario(serve: Serve) -> None:
        async with serve(nothing, False) as peer:
            request = destination_pb2.HandoffRequest()
            with pytest.raises(Refused) as caught:
                await call(DestinationStub(peer.channel).Handoff, request, peer=PEER, deadline=10)
            assert caught.value.code == "not-offered"

    over(scenario)


@over_both
def test_a_server_that_has_gone_is_unreachable(over: Over) -> None:
    async def scenario(serve: Serve) -> None:
        async with serve(nothing, False) as peer:
            await check(peer.channel)
            await peer.stop()
            with pytest.raises(Unreachable) as caught:
                await check(peer.channel)
            assert caught.value.code == "unreachable"

    over(scenario)


@over_both
def test_a_stream_delivers_in_order_and_then_fails_as_itself(over: Over) -> None:
    async def scenario(serve: Serve) -> None:
        async with serve(nothing, False) as peer:
            seen: list[int] = []
            with pytest.raises(AttemptFailed):
                await watch(peer.channel, seen, silence=10)
            assert seen == [1, 2]

    over(scenario)


@over_both
def test_a_silent_stream_is_given_up(over: Over) -> None:
    async def scenario(serve: Serve) -> None:
        async with serve(nothing, True) as peer:
            seen: list[int] = []
            with pytest.raises(Unreachable) as caught:
                await watch(peer.channel, seen, silence=3.0)
            assert (seen, caught.value.code) == ([1, 2], "silent")

    over(scenario)


@over_both
def test_a_stream_whose_server_goes_is_unreachable(over: Over) -> None:
    async def scenario(serve: Serve) -> None:
        async with serve(nothing, True) as peer:
            watching = stream(SourceStub(peer.channel).Watch, source_pb2.AttemptRequest(), peer=PEER, silence=10)
            async with contextlib.aclosing(watching) as reports:
                assert (await anext(reports)).sequence == 1
                assert (await anext(reports)).sequence == 2
                await peer.stop()
                with pytest.raises(Unreachable):
                    await anext(reports)

    over(scenario)


@over_both
def test_bulk_messages_go_both_ways_in_order(over: Over) -> None:
    async def scenario(serve: Serve) -> None:
        async with serve(nothing, False) as peer:
            bulk = _bulk(peer.channel)
            for number in range(40):
                await bulk.write(b"%d" % number)
                assert await bulk.read() == (b"%d" % number)[::-1]
            bulk.cancel()

    over(scenario)


@over_both
def test_a_bulk_stream_that_was_cancelled_takes_nothing_more(over: Over) -> None:
    async def scenario(serve: Serve) -> None:
        async with serve(nothing, False) as peer:
            bulk = _bulk(peer.channel)
            await bulk.write(b"first")
            await bulk.read()
            bulk.cancel()
            with pytest.raises((asyncio.InvalidStateError, asyncio.CancelledError, grpc.aio.AioRpcError)):
                await bulk.write(b"second")

    over(scenario)


@over_both
def test_a_bulk_stream_whose_server_goes_fails_to_be_read(over: Over) -> None:
    async def scenario(serve: Serve) -> None:
        async with serve(nothing, False) as peer:
            bulk = _bulk(peer.channel)
            await bulk.write(b"first")
            await bulk.read()
            await peer.stop()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await bulk.read()
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

    over(scenario)


@over_both
def test_a_read_that_is_given_up_ends_the_stream(over: Over) -> None:
    async def scenario(serve: Serve) -> None:
        async with serve(nothing, False) as peer:
            bulk = _bulk(peer.channel)
            await bulk.write(b"first")
            await bulk.read()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await bulk.read()
            with pytest.raises((asyncio.InvalidStateError, asyncio.CancelledError, grpc.aio.AioRpcError)):
                await bulk.write(b"second")

    over(scenario)


def _bulk(channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream("/vm_migration.api.v1.Bulk/Send")
    return method(metadata=(("viaduct-attempt", "none"),))
