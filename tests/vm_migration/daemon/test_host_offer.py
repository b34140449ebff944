"""What a host offers machines: as configured, on the wire, and where it is refused."""

from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dest_agent.admission import Admission
from source_agent.doubts import Doubts
from source_agent.holdings import Holdings
from source_agent.machines import Machines
from vm_migration.api.v1 import types_pb2
from vm_migration.daemon.configuration import load
from vm_migration.daemon.host_burden import Burden
from vm_migration.daemon.host_facts import DIRECT_MACHINE_STREAM, VERSION
from vm_migration.daemon.host_offer import HostOffer, unmet
from vm_migration.daemon.host_place import own_place
from vm_migration.daemon.host_service import HostService
from vm_migration.errors import Refused
from vm_migration.handover.journals import Journals
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.machine_state import STATE_FORMAT
from vmm.assembly.specification import MachineSpecification, check_specification

MIB = 1 << 20
CONFIGURATION = """
[host.host-a]
source = "127.0.0.1:7001"
dest = "127.0.0.1:7002"
bulk = "192.168.0.1"
[agent]
host = "host-a"
state_dir = "state"
run_dir = "run"
memory_budget = "1GiB"
"""
OFFERS = st.builds(
    HostOffer,
    st.frozensets(st.sampled_from(["qat", "nic", "gpu", "plain", "of-a-later-version"])),
    st.frozensets(st.sampled_from(["iommufd", "type1"])),
    st.frozensets(st.sampled_from(["scalable", "legacy"])),
    st.frozensets(st.sampled_from([39, 48])),
    st.booleans(),
    st.integers(0, 9),
    st.text(max_size=9),
    st.integers(0, 1 << 40),
)
DEVICES = st.fixed_dictionaries(
    {"model": st.sampled_from(["qat", "nic", "gpu", "plain"]), "backend": st.sampled_from(["iommufd", "type1"])}
)


def specified(*devices: dict[str, object], **viommu: object) -> MachineSpecification:
    tables = [{"name": f"d{place}", "address": f"00:0{place + 1}.0", **one} for place, one in enumerate(devices)]
    return check_specification({"name": "m", "memory": {"size": "1GiB"}, "device": tables, "viommu": viommu}, "test")


@given(OFFERS)
def test_an_offer_is_read_as_it_was_told(offer: HostOffer) -> None:
    assert HostOffer.told(types_pb2.HostFacts(offer=offer.message())) == offer


def test_a_host_that_makes_no_offer_is_not_one_that_offers_nothing() -> None:
    assert HostOffer.told(types_pb2.HostFacts(host="host-a", version="0.1.0")) is None


@given(st.lists(DEVICES, max_size=3), st.sampled_from(["scalable", "legacy"]), st.sampled_from([39, 48]))
def test_everything_of_this_version_is_offered_where_nothing_is_said(
    devices: list[dict[str, object]], mode: str, bits: int
) -> None:
    assert unmet(HostOffer(), specified(*devices, mode=mode, aw_bits=bits), "host-a") == ()


@given(OFFERS, st.lists(DEVICES, max_size=3), st.sampled_from(["scalable", "legacy"]), st.sampled_from([39, 48]))
def test_each_thing_that_is_not_offered_is_told_with_its_device(
    offer: HostOffer, devices: list[dict[str, object]], mode: str, bits: int
) -> None:
    wanted = specified(*devices, mode=mode, aw_bits=bits)
    lacking = (mode not in offer.viommu_modes) + (bits not in offer.viommu_address_bits)
    for one in wanted.device:
        lacking += (one.model not in offer.device_models) + (one.backend not in offer.backends)
        lacking += one.host_iommu_dirty_tracking and not offer.host_dirty_tracking
    found = unmet(offer, wanted, "host-a")
    assert len(found) == lacking
    assert {one.device for one in found} <= {"", *(one.name for one in wanted.device)}


def test_a_machine_without_a_viommu_asks_for_none() -> None:
    offer = HostOffer(viommu_modes=frozenset(), viommu_address_bits=frozenset())
    assert unmet(offer, specified(model="none"), "host-a") == ()


@pytest.mark.parametrize(
    ("wanted", "offered", "runs"),
    [
        ("qemu-system-x86_64", (), False),
        ("qemu-system-x86_64", ("/usr/bin/qemu-system-x86_64",), True),
        ("/usr/bin/qemu-system-x86_64", ("/usr/bin/qemu-system-x86_64",), True),
        ("/home/me/qemu-system-x86_64", ("/usr/bin/qemu-system-x86_64",), False),
        ("sh", ("/usr/bin/qemu-system-x86_64",), False),
        ("qemu-system-x86_64", ("/usr/bin/qemu-system-x86_64", "/opt/bin/qemu-system-x86_64"), False),
        ("/opt/bin/qemu-system-x86_64", ("/usr/bin/qemu-system-x86_64", "/opt/bin/qemu-system-x86_64"), True),
    ],
)
def test_only_programs_that_a_host_lists_are_machines_there(wanted: str, offered: tuple[str, ...], runs: bool) -> None:
    document = {"name": "web", "kind": "qemu", "memory": {"size": "1GiB"}, "qemu": {"binary": wanted}}
    found = unmet(HostOffer(qemu=frozenset(offered)), check_specification(document, "test"), "host-a")
    assert [each.code for each in found] == ([] if runs else ["kind-not-offered"])


def test_what_a_host_offers_is_read_from_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "viaduct.toml"
    path.write_text(CONFIGURATION)
    assert own_place(load(path, {})).offer == HostOffer(bulk_host="192.168.0.1")
    limited = CONFIGURATION.replace("[agent]", 'bandwidth = "10Gbit/s"\n[agent]')
    path.write_text(
        f'{limited}[offer]\ndevice_models = ["nic"]\nbackends = []\nviommu_address_bits = [48]\n'
        'host_dirty_tracking = false\nqemu = ["/usr/bin/qemu-system-x86_64"]\n'
    )
    assert own_place(load(path, {})).offer == HostOffer(
        device_models=frozenset({"nic"}),
        backends=frozenset(),
        viommu_address_bits=frozenset({48}),
        host_dirty_tracking=False,
        bulk_host="192.168.0.1",
        link_bytes_per_s=1_250_000_000,
        qemu=frozenset({"/usr/bin/qemu-system-x86_64"}),
    )


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('device_models = ["toaster"]', "offer.device_models[0]"),
        ("viommu_address_bits = [57]", "offer.viommu_address_bits[0]"),
        ('colour = "red"', "offer.colour"),
        ('qemu = ["qemu-system-x86_64"]', "offer.qemu[0]"),
    ],
)
def test_what_no_host_can_offer_is_told(tmp_path: Path, line: str, key: str) -> None:
    path = tmp_path / "viaduct.toml"
    path.write_text(f"{CONFIGURATION}[offer]\n{line}\n")
    with pytest.raises(InvalidDocument) as caught:
        load(path, {})
    assert [one.key for one in caught.value.faults] == [key]


def test_what_is_not_offered_is_not_taken_in(tmp_path: Path) -> None:
    wanted = specified({"model": "nic"})
    asked = types_pb2.Requirements(
        machine=str(uuid4()),
        name="m",
        specification=wanted.to_json(),
        ram_bytes=wanted.memory.size,
        version=VERSION,
        state_format=STATE_FORMAT,
    )
    offer = HostOffer(device_models=frozenset({"qat"}))
    admission = Admission("host-b", SoftwareHypervisor(tmp_path), 1 << 30, offer=offer)
    (found,) = admission.check(asked)
    assert (found.code, found.device) == ("device-not-offered", "d0")
    with pytest.raises(Refused), admission.place(asked):
        pytest.fail("it is not offered")


async def test_what_is_not_offered_is_not_created(tmp_path: Path) -> None:
    hypervisor = SoftwareHypervisor(tmp_path)
    holdings = Holdings(Journals(tmp_path / "journal"), hypervisor)
    offer = HostOffer(viommu_modes=frozenset({"legacy"}))
    machines = Machines("host-a", holdings, 1 << 40, Doubts(), offer=offer)
    with pytest.raises(Refused) as refusal:
        await machines.create(specified())
    assert (refusal.value.code, refusal.value.message) == (
        "iommu-not-offered",
        "host-a offers no vIOMMU in scalable mode",
    )
    assert list(hypervisor.all()) == []


async def test_a_host_tells_what_it_offers_and_what_it_has_to_do(tmp_path: Path) -> None:
    path = tmp_path / "viaduct.toml"
    path.write_text(CONFIGURATION)
    place = own_place(load(path, {}))
    service = HostService(place, lambda _: "", lambda: Burden(3, {str(uuid4()): 64 * MIB}), lambda: 12.5)
    facts = await service.DescribeHost(types_pb2.Empty(), None)  # type: ignore[arg-type]  # it looks at no context
    assert DIRECT_MACHINE_STREAM not in facts.features  # nobody gave it certificates
    assert HostOffer.told(facts) == place.offer
    assert facts.load == types_pb2.HostLoad(
        machines=0, memory_reserved_bytes=64 * MIB, memory_free_bytes=960 * MIB, attempts=3
    )
    assert (await service.ListCustodies(types_pb2.Empty(), None)).clock_s == 12.5  # type: ignore[arg-type]  # as above
