"""Options that take a size, a rate or a duration, and the ones that make a policy."""

from collections.abc import Callable
from typing import ParamSpec, TypedDict, TypeVar

import click

from orchestrator.policy import MOST_STREAMS, Compression, MigrationPolicy, OnTimeout, Profile, Transport, Verify
from vmm.assembly.quantity_text import parse_duration, parse_rate, parse_size

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class Quantity(click.ParamType[int, str | int]):
    """A number with a unit, as people write it."""

    def __init__(self, name: str, parse: Callable[[str], int]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number in its smallest unit."""
        if isinstance(value, int):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE = Quantity("size", parse_size)
RATE = Quantity("rate", parse_rate)
DURATION = Quantity("duration", parse_duration)


class PolicyOptions(TypedDict):
    """What the policy options give."""

    downtime_limit: int
    max_bandwidth: int | None
    timeout: int
    on_timeout: OnTimeout
    profile: Profile
    transport: Transport
    streams: int
    compression: Compression
    verify: Verify


def policy_options(command: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Add the options of a policy to a command, with the contract's defaults."""
    for option in reversed(_POLICY):
        command = option(command)
    return command


def policy_of(options: PolicyOptions) -> MigrationPolicy:
    """Return the policy that the options say."""
    return MigrationPolicy(
        downtime_limit_ms=options["downtime_limit"] // 1_000_000,
        max_bandwidth_bytes_per_s=options["max_bandwidth"] or 0,
        timeout_ms=options["timeout"] // 1_000_000,
        on_timeout=options["on_timeout"],
        profile=options["profile"],
        transport=options["transport"],
        streams=options["streams"],
        compression=options["compression"],
        verify=options["verify"],
    )


_POLICY = (
    click.option(
        "--downtime-limit", type=DURATION, default="300ms", show_default=True, help="Longest standstill of the guest."
    ),
    click.option("--max-bandwidth", type=RATE, help="Most bytes a second on the wire; unlimited when left out."),
    click.option("--timeout", type=DURATION, default="10m", show_default=True, help="Longest time for all of it."),
    click.option(
        "--on-timeout",
        type=click.Choice(["cancel", "force"]),
        default="cancel",
        show_default=True,
        help="What the end of --timeout means: give up, or switch over whatever the standstill.",
    ),
    click.option(
        "--profile",
        type=click.Choice(["gentle", "balanced", "urgent"]),
        default="balanced",
        show_default=True,
        help="What may be taken from the guest's vCPUs where it does not converge: nothing, half of their time, 90 %.",
    ),
    click.option(
        "--transport",
        type=click.Choice(["grpc", "direct"]),
        default="grpc",
        show_default=True,
        help="How memory travels: over gRPC, or over connections of its own under TLS 1.3.",
    ),
    click.option("--streams", type=click.IntRange(1, MOST_STREAMS), default=1, show_default=True),
    click.option(
        "--compression",
        type=click.Choice(["auto", "none", "lz4", "zstd"]),
        default="auto",
        show_default=True,
        help="`auto` takes, from moment to moment, what memory was seen to go fastest with, also none.",
    ),
    click.option(
        "--verify",
        type=click.Choice(["auto", "full", "none"]),
        default="auto",
        show_default=True,
        help="auto: digests are reused where a witness allows it; full: everything is hashed at the pause.",
    ),
)
