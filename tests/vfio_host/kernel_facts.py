"""The recorded answers of a real kernel, golden/kernel-facts.json, and hosts to try them on."""

import errno
from pathlib import Path

import msgspec
import pytest

from vfio_host.interface import calls
from vfio_host.interface.calls import Answer, DeviceConfiguration, Failed, HostConfiguration
from vfio_host.interface.numbers import MapFlags

Value = None | bool | int | str | list[list[str]]


class Case(msgspec.Struct, frozen=True):
    """One recorded call."""

    given: str
    call: str
    args: dict[str, Value]
    returns: int | str
    also: dict[str, Value] = {}


class Facts(msgspec.Struct, frozen=True):
    """The file."""

    type1: tuple[Case, ...]
    iommufd: tuple[Case, ...]


FILE = Path(__file__).parents[1] / "golden" / "kernel-facts.json"
FACTS = msgspec.json.decode(FILE.read_bytes(), type=Facts)

IOVA, SIZE, PAGE = 0x10000000, 64 << 20, 4096
READ_WRITE = MapFlags.READ | MapFlags.WRITE
TIB = 1 << 40


def check_return(case: Case, answer: Answer) -> None:
    """Check that a call returned what the kernel did."""
    if isinstance(case.returns, str):
        assert answer == Failed(getattr(errno, case.returns.removeprefix("-")))
    else:
        assert not isinstance(answer, Failed)


def configuration(case: Case) -> HostConfiguration:
    """Return the host that a case was recorded on."""
    device = DeviceConfiguration(
        name="dev0",
        model="plain" if case.given.startswith("plain") else "qat",
        iommu_dirty_tracking="without dirty tracking" not in case.given,
    )
    return HostConfiguration(
        devices=(device,),
        interrupt_remapping="without interrupt remapping" not in case.given,
        second_stage="first-stage only" not in case.given,
    )


def ranged(case: Case) -> tuple[int, int]:
    """Return the IOVA and length that a call is about."""
    match case.args.get("range"):
        case None | "the mapping" | "the mapping's":
            return IOVA, SIZE
        case "half the mapping":
            return IOVA, SIZE // 2
        case "16 TiB":
            return 16 * TIB, 16 * TIB
    pytest.fail(f"Unknown range {case.args['range']}")


def answer_number(answer: Answer) -> int:
    assert isinstance(answer, calls.Number), answer
    return answer.value


def case_name(case: Case) -> str:
    return f"{case.given}-{case.call}-{case.args}"
