"""A scenario: a machine, what its guest does at which moment, and what must come of it.

The machine is a specification (docs/specification.md); switches of its rules are set in `[machine.rules]`. Moments are
named, not timed: `start` (the guest has worked for a while, nothing is tracked), `tracking` (tracking began, round 0
is not sent), `round-N` (in the middle of round N), `pausing` (after the last harvest that the guest lives through).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from lab.cases import cases_of
from vfio_host.interface.numbers import LEAF_SIZES
from vmm.assembly.document_faults import Fault, InvalidDocument, faults_of, parse_toml, read_toml
from vmm.assembly.field_kinds import Name, Rate, Size, Table
from vmm.assembly.specification import MachineSpecification, check_specification
from vmm.update.rules import UpdateRules


def _moment(name: str) -> str:
    if not re.fullmatch(r"start|tracking|round-[0-9]{1,3}|pausing", name):
        raise PydanticCustomError("moment", "Unknown moment", {"allowed": "start, tracking, round-N or pausing"})
    return name


def _host_page(size: int) -> int:
    if size not in LEAF_SIZES:
        raise PydanticCustomError("page", "No host has such pages", {"allowed": "4KiB, 16KiB or 64KiB"})
    return size


Moment = Annotated[str, AfterValidator(_moment)]
HostPage = Annotated[Size, AfterValidator(_host_page)]
Doing = Literal["take", "give-back", "block", "unblock", "churn", "calm", "quiet", "fail-query", "fail-unmap"]
"""The user driver takes the device and gives it back; the kernel blocks it and brings it back; buffers are churned, or
no more; everything in the guest comes to rest; the host's next bitmap query, or unmap, fails with EIO."""


class RunSpecification(Table):
    """How the scenario is run; sizes in bytes, rates in bytes a second."""

    kind: Literal["migrate", "plan", "dirty-rate", "update"] = "migrate"
    """`plan` asks for blockers and the forecast only; `dirty-rate` measures without a migration; `update` has other
    processes take the machine over, on its host."""
    in_process_only: bool = False
    seed: int = Field(default=1, ge=0, lt=1 << 32)
    bandwidth: Rate = 1_250_000_000
    downtime_limit_ms: int = Field(default=300, ge=1, le=2_000_000)
    timeout_ms: int = Field(default=60_000, ge=1, le=10_000_000)
    least_rounds: int = Field(default=3, ge=1, le=100)
    """Rounds before the guest may be stopped, so that moments come."""
    work_ms: int = Field(default=300, ge=0, le=60_000)
    host_page_size: HostPage = 4096
    sparse: bool = False
    """RAM that nobody touched stands for data: it is sent in no time here, and charged on the link as if it were."""


class UpdateSpecification(Table):
    """How the machine is updated, of `run.kind = "update"`: switches of vmm.update.rules, and what its host is like."""

    times: int = Field(default=2, ge=1, le=10)
    gap_ms: int = Field(default=5, ge=0, le=1000)
    """How long the guest stands still, while its devices work."""
    heed_blockers: bool = True
    """False goes on in spite of them, to show what they are for."""
    tracking: bool = False
    """Dirty pages are tracked while the update is asked for."""
    invariant_device_names: bool = True
    """False for devices that are called by the numbers of their descriptors (seed 4, patches 9 to 11)."""
    map_by_file: bool = True
    """False for mappings by user address (seed 4, patches 5 to 8)."""
    host_updates_vaddr: bool = True
    host_changes_process: bool = True
    locked_memory_limit: Size | None = None
    """RLIMIT_MEMLOCK of each new process; none where it may lock what it likes."""
    preserve_descriptors: bool = True
    reconstruct_device: bool = True
    reconstruct_hwpt: bool = True
    preserve_mappings: bool = True
    skip_reset: bool = True
    abandon_addresses: bool = True
    register_addresses: bool = True
    change_process: bool = True
    preserve_interrupts: bool = True
    close_kvm_after_update: bool = True

    def rules(self) -> UpdateRules:
        """Return what the processes are built with."""
        return UpdateRules(**{name: getattr(self, name) for name in UpdateRules.__dataclass_fields__})


class Action(Table):
    """Something that happens at a moment."""

    at: Moment
    do: Doing
    device: Name | None = None
    times: int = Field(default=1, ge=1, le=1_000_000)
    """Of `fail-query` and `fail-unmap`: how many of them fail, one after another."""


class Expectation(Table):
    """What must be seen; what is left out is not looked at."""

    outcome: Literal["completed", "failed", "blocked", "allowed", "measured", "updated"]
    error: str = ""
    """A part of the stream's error text, or of a blocker's message."""
    blockers: tuple[str, ...] | None = None
    warnings: tuple[str, ...] | None = None
    verifier: Literal["accepts", "refuses"] | None = None
    """`refuses` means: exactly the oracle's pages."""
    pages_lost: Literal["none", "some"] | None = None
    flushes: Literal["none", "one-per-unmap"] | None = None
    unmaps: Literal["none", "some"] | int | None = None
    """Unmaps of ranges while dirty pages were tracked; a number is exact."""
    stale_mappings: int | None = None
    tracker: str | tuple[str, ...] | None = None
    """Of every container, or of each in the devices' order."""
    guest_errors: int | None = None
    own_errors: Literal["none", "some"] | None = None
    """Errors that the guest brought on itself, by `guest.dma_after_unmap`."""
    switches: Literal["none", "some"] | None = None
    """Whether devices went from one domain to another while the machine moved."""
    complaints: Literal["none", "some"] = "none"
    """What the host refused and nobody but a log was told, of a migration that completed or a measurement."""
    updates: int | None = None
    """How many processes have taken the machine over."""
    jobs: Literal["whole", "lost"] | None = None
    """Whether every job that devices had was answered, and more were done, once the machine had changed hands."""
    devices_reset: int | None = None
    mappings_changed: int | None = None
    """Mappings that the host made or unmade while the machine changed hands."""
    locked_memory: Literal["own", "left-behind"] | None = None
    """Whose the pages are that devices reach: the process's that has the machine, or in part one's that is gone."""
    standstill_as_planned: bool = False
    """The run stands still for as long as the plan says, within a tenth."""

    def from_outside(self) -> "Expectation":
        """Return what of it can be seen of real machines: not what happens within their host processes."""
        return self.model_copy(update={**dict.fromkeys(_INSIDE), "standstill_as_planned": False})


_INSIDE: Final = (
    "flushes",
    "unmaps",
    "stale_mappings",
    "tracker",
    "own_errors",
    "devices_reset",
    "mappings_changed",
    "locked_memory",
)


class ScenarioDocument(Table):
    """The tables of a scenario's file beside `[machine]`."""

    name: Name
    title: str
    sources: tuple[str, ...] = ()
    """Where the claim is made: seed and patch, or section of the semantics."""
    run: RunSpecification = RunSpecification()
    update: UpdateSpecification = UpdateSpecification()
    action: tuple[Action, ...] = ()
    expect: Expectation


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario whose machine has been checked too."""

    document: ScenarioDocument
    machine: MachineSpecification

    @property
    def name(self) -> str:
        """The scenario's name."""
        return self.document.name


MAX_CASES: Final = 100
"""Of one file."""
SHIPPED: Final = Path(__file__).parent / "scenarios"


def load_scenarios(path: Path) -> tuple[Scenario, ...]:
    """Read a file's scenarios: one, or one for each of its cases (lab.cases).

    Raises:
        InvalidDocument: With every fault at once, those of the machines included.
    """
    return check_scenarios(read_toml(path), str(path))


def parse_scenario(text: str, name: str) -> Scenario:
    """Read one scenario from text; `name` is what its faults carry.

    Raises:
        InvalidDocument: With every fault at once.
    """
    return check_scenario(parse_toml(text.encode(), name), name)


def check_scenarios(document: Mapping[str, object], name: str) -> tuple[Scenario, ...]:
    """Check a file's document, case by case; `name` is what its faults carry.

    Raises:
        InvalidDocument: With every fault of every case at once.
    """
    found: list[Scenario] = []
    faults: list[Fault] = []
    cases = document.get("case")
    if isinstance(cases, list) and len(cases) > MAX_CASES:
        raise InvalidDocument([Fault(name, "case", f"{len(cases)} cases", f"at most {MAX_CASES}")])
    for case, each in cases_of(document):
        try:
            found.append(check_scenario(each, f"{name} {case}".strip()))
        except InvalidDocument as error:
            faults.extend(error.faults)
    twice = [one.name for one in found if [other.name for other in found].count(one.name) > 1]
    faults.extend(Fault(name, "case", f'"{one}" is there twice', "a name of its own") for one in dict.fromkeys(twice))
    if faults:
        raise InvalidDocument(faults)
    return tuple(found)


def check_scenario(document: Mapping[str, object], name: str) -> Scenario:
    """Check a scenario's document; `name` is what its faults carry.

    Raises:
        InvalidDocument: With every fault at once.
    """
    faults: list[Fault] = []
    rest = {key: value for key, value in document.items() if key != "machine"}
    checked = machine = None
    try:
        checked = ScenarioDocument.model_validate(rest, strict=False)
    except ValidationError as error:
        faults.extend(faults_of(error, name, ScenarioDocument))
    table = document.get("machine")
    if not isinstance(table, dict):
        faults.append(Fault(name, "machine", "Missing", "a [machine] table, see docs/specification.md"))
    else:
        try:
            machine = check_specification({"name": document.get("name", "machine"), **table}, name)
        except InvalidDocument as error:
            faults.extend(replace(fault, key=f"machine.{fault.key}") for fault in error.faults)
    if checked is None or machine is None or faults:
        raise InvalidDocument(faults)
    known = {device.name for device in machine.device}
    for index, action in enumerate(checked.action):
        if action.device is not None and action.device not in known:
            allowed = ", ".join(sorted(known)) or "no device: the machine has none"
            faults.append(Fault(name, f"action[{index}].device", f'No device "{action.device}"', allowed))
    if faults:
        raise InvalidDocument(faults)
    return Scenario(checked, machine)
