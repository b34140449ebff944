import tomllib

import pytest

from lab.cases import cases_of
from lab.scenario import check_scenarios
from vmm.assembly.document_faults import InvalidDocument

DEVICE = """[[machine.device]]
name = "qat{}"
model = "qat"
address = "00:0{}.0"
"""
TEXT = f"""
name = "tried"
title = "As it is"
[machine]
memory.size = "64MiB"
guest.iommu = "pt"
{DEVICE.format(0, 4)}{DEVICE.format(1, 5)}[[action]]
at = "start"
do = "quiet"
[expect]
outcome = "completed"
blockers = ["large-memory"]
[[case]]
name = "first"
[[case]]
name = "second"
title = "Otherwise"
machine = {{ guest.iommu = "nopt", device = [{{}}, {{ backend = "type1" }}] }}
expect = {{ outcome = "failed", blockers = [] }}
"""


def test_a_case_is_the_file_with_its_own_keys_laid_over() -> None:
    first, second = check_scenarios(tomllib.loads(TEXT), "text")
    assert (first.name, first.document.title, first.document.expect.outcome) == ("tried-first", "As it is", "completed")
    assert (second.name, second.document.title, second.document.expect.outcome) == (
        "tried-second",
        "Otherwise",
        "failed",
    )
    assert (first.machine.guest.iommu, second.machine.guest.iommu) == ("pt", "nopt")
    assert [device.backend for device in second.machine.device] == ["iommufd", "type1"]
    assert [device.name for device in second.machine.device] == ["qat0", "qat1"]
    assert (first.document.expect.blockers, second.document.expect.blockers) == (("large-memory",), ())
    assert first.document.action == second.document.action


def test_a_file_without_cases_is_one_scenario() -> None:
    document = tomllib.loads(TEXT.split("[[case]]", maxsplit=1)[0])
    assert list(cases_of(document)) == [("", document)]
    assert [scenario.name for scenario in check_scenarios(document, "text")] == ["tried"]


def test_faults_of_every_case_come_at_once_and_name_it() -> None:
    text = TEXT.replace('"Otherwise"', "7").replace('name = "first"', 'name = "first"\nrun.bandwidth = "much"')
    with pytest.raises(InvalidDocument) as raised:
        check_scenarios(tomllib.loads(text), "text")
    assert [(fault.file, fault.key) for fault in raised.value.faults] == [
        ("text case[0]", "run.bandwidth"),
        ("text case[1]", "title"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ('guest.iommu = "pt"', 'guest.iommu = "none"', ("machine.guest.iommu", "'pt' or 'nopt'")),
        ("[expect]", '[run]\nhost_page_size = "8KiB"\n[expect]', ("run.host_page_size", "4KiB, 16KiB or 64KiB")),
        ("[expect]", "[run]\nhost_page_size = 0\n[expect]", ("run.host_page_size", "4KiB, 16KiB or 64KiB")),
        ('at = "start"', 'at = "round-x"', ("action[0].at", "start, tracking, round-N or pausing")),
    ],
)
def test_a_fault_names_the_key_where_it_stands_and_what_would_do(
    before: str, after: str, fault: tuple[str, str]
) -> None:
    with pytest.raises(InvalidDocument) as raised:
        check_scenarios(tomllib.loads(TEXT.partition("[[case]]")[0].replace(before, after)), "text")
    assert [(found.key, found.allowed) for found in raised.value.faults] == [fault]


def test_two_cases_of_one_name_are_a_fault() -> None:
    with pytest.raises(InvalidDocument, match='"tried-first" is there twice'):
        check_scenarios(tomllib.loads(TEXT.replace('"second"', '"first"')), "text")


def test_an_action_names_a_device_of_the_machine() -> None:
    text = TEXT.replace('do = "quiet"', 'do = "block"\ndevice = "qat7"')
    with pytest.raises(InvalidDocument, match='No device "qat7"'):
        check_scenarios(tomllib.loads(text), "text")


@pytest.mark.parametrize("cases", ["[]", "7", '"first"', "[1, 2]", "{ name = 'first' }"])
def test_cases_that_are_no_tables_are_a_fault(cases: str) -> None:
    document = tomllib.loads(f"case = {cases}\n" + TEXT.split("[[case]]", maxsplit=1)[0])
    with pytest.raises(InvalidDocument) as raised:
        check_scenarios(document, "text")
    assert [(fault.file, fault.key) for fault in raised.value.faults] == [("text", "case")]
