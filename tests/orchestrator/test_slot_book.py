"""How many machines a host sends and takes: as configured, and more while somebody asks for it."""

from pathlib import Path

import pytest

from orchestrator.queueing import Slots
from orchestrator.slot_book import SlotBook, configured_slots
from vm_migration.daemon.configuration import load
from vmm.assembly.document_faults import InvalidDocument

HOST = '[host.host-{0}]\nsource = "10.0.0.1:7{0}1"\ndest = "10.0.0.1:7{0}2"\n'


def configured(folder: Path, text: str) -> Slots:
    file = folder / "viaduct.toml"
    file.write_text(text)
    return configured_slots(load(file, {}))


def test_a_host_has_the_slots_of_its_section_else_those_of_the_site_else_one(tmp_path: Path) -> None:
    hosts = f"{HOST.format(1)}outgoing = 4\n{HOST.format(2)}"
    usual = configured(tmp_path, hosts)
    assert [usual.out_of("host-1"), usual.out_of("host-2"), usual.into("host-1")] == [4, 1, 1]
    wide = configured(tmp_path, f"[limits]\noutgoing = 2\nincoming = 3\n{hosts}")
    assert [wide.out_of("host-1"), wide.out_of("host-2"), wide.into("host-1")] == [4, 2, 3]


@pytest.mark.parametrize("value", ["0", "1025", '"many"', "1.5"])
def test_a_number_of_slots_that_is_none_is_told(tmp_path: Path, value: str) -> None:
    with pytest.raises(InvalidDocument) as found:
        configured(tmp_path, f"[limits]\nincoming = {value}\n{HOST.format(1)}outgoing = {value}\n")
    assert {fault.key for fault in found.value.faults} == {"limits.incoming", "host.host-1.outgoing"}


def test_what_is_asked_for_counts_while_it_is_and_the_most_of_all_does() -> None:
    book = SlotBook(Slots(incoming_of={"b": 2}))
    assert book.ask("one", {"a": 3}, {"b": 1})
    assert not book.ask("one", {"a": 3}, {"b": 1})
    assert book.ask("other", {"a": 2}, {"b": 5})
    assert (book.now().out_of("a"), book.now().into("b")) == (3, 5)
    assert book.opening() == book.now()
    assert book.ask("one", {"a": 3}, {"b": 1}, ahead=4)
    assert (book.opening().out_of("a"), book.opening().into("b"), book.now().out_of("a")) == (7, 5, 3)
    assert book.ask("one", {}, {})
    assert not book.ask("one", {}, {})
    assert (book.now().out_of("a"), book.now().into("b")) == (2, 5)
    assert book.ask("other", {}, {})
    assert book.now() == book.usual
