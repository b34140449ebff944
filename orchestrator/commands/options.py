"""Options that take a size, a rate or a duration, and the ones that make a policy, or say how one came about."""

from collections.abc import Callable
from typing import ParamSpec, TypedDict, TypeVar

import click

from orchestrator.attempt import Asked
from orchestrator.limits import UNLIMITED
from orchestrator.policy import (
    MEASURE_MS,
    MOST_STREAMS,
    Compression,
    MigrationPolicy,
    OnTimeout,
    Profile,
    Transport,
    Verify,
    policy_to,
)
from vm_migration.daemon.configuration import Configuration
from vm_migration.machine.windows import LONGEST_WINDOW_MS, SHORTEST_SAMPLE_MS
from vmm.assembly.quantity_text import format_duration, parse_duration, parse_rate, parse_size

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


class RateLimit(Quantity):
    """A rate, or the word for none, which is given as UNLIMITED."""

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes a second."""
        return UNLIMITED if value == "unlimited" else super().convert(value, param, ctx)


class Window(Quantity):
    """For how long to look at something: a duration within bounds, given in milliseconds and returned in those."""

    def __init__(self, shortest: int, longest: int, *, none: bool = False) -> None:
        """With `none`, `0s` is for not at all."""
        super().__init__("duration", parse_duration)
        self._shortest, self._longest, self._none = shortest, longest, none

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return whole milliseconds."""
        given = super().convert(value, param, ctx)
        within = self._shortest * _NS <= given <= self._longest * _NS
        if not within and (given or not self._none):
            bounds = f"{format_duration(self._shortest * _NS)} and {format_duration(self._longest * _NS)}"
            self.fail(f"{value} is not within {bounds}{', nor 0s for none' if self._none else ''}", param, ctx)
        return given // _NS


_NS = 1_000_000
SIZE = Quantity("size", parse_size)
RATE = Quantity("rate", parse_rate)
RATE_LIMIT = RateLimit("rate", parse_rate)
DURATION = Quantity("duration", parse_duration)


class PolicyOptions(TypedDict):
    """What the policy options give."""

    downtime_limit: int
    max_bandwidth: int | None
    timeout: int
    on_timeout: OnTimeout
    profile: Profile
    transport: Transport | None
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
        transport=options["transport"] or "grpc",
        streams=options["streams"],
        compression=options["compression"],
        verify=options["verify"],
    )


def asked_of(options: PolicyOptions, measure_ms: int) -> Asked:
    """Return what the options say beside the policy."""
    return Asked(measure_ms, by_host=options["transport"] is None)


def settled_by(
    configuration: Configuration, destination: str, policy: MigrationPolicy, asked: Asked
) -> tuple[MigrationPolicy, Asked]:
    """Return both as the configuration of who gives the order says of the destination, where it says anything.

    What it leaves open is for who drives, as where the destination is still to be chosen.
    """
    host = configuration.host.get(destination)
    if host is None or host.transport is None or not asked.by_host:
        return policy, asked
    return policy_to(policy, host.transport, by_host=True), Asked(asked.measure_ms)


measure_option = click.option(
    "--measure",
    "measure_ms",
    type=Window(SHORTEST_SAMPLE_MS, LONGEST_WINDOW_MS, none=True),
    default=format_duration(MEASURE_MS * _NS),
    show_default=True,
    help="For how long its writes are measured first, 100ms to 10s; 0s takes what the guest says of itself.",
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
        help="What may be taken from the guest's vCPUs where it does not converge: nothing, half of their time, 90 %;"
        " urgent holds devices, too, where nothing else helps.",
    ),
    click.option(
        "--transport",
        type=click.Choice(["grpc", "direct", "sealed"]),
        show_default="as configured for the destination, else grpc",
        help="How memory travels: over gRPC, or over connections of its own under TLS 1.3; sealed: with whole frames"
        " sealed by keys agreed on there.",
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
