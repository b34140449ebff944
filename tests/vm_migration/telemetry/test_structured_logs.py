"""Logs: one JSON document a line, bound fields, no secrets."""

import asyncio
import io
import json
import logging

import pytest

from vm_migration.telemetry import logs


@pytest.fixture
def written() -> io.StringIO:
    stream = io.StringIO()
    logs.configure("viaduct-test", stream=stream)
    return stream


def entries(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_entry_says_when_who_and_what(written: io.StringIO) -> None:
    logs.get("tests").info("prepared", pages=3)
    [entry] = entries(written)
    assert str(entry.pop("time")).endswith("Z")
    assert entry == {"event": "prepared", "level": "info", "module": "tests", "pages": 3, "process": "viaduct-test"}


def test_fields_are_bound_inside_only(written: io.StringIO) -> None:
    log = logs.get("tests")
    with logs.bound(machine="m", attempt="a", epoch=3):
        log.info("inside")
    log.info("outside")
    inside, outside = entries(written)
    assert (inside["machine"], inside["attempt"], inside["epoch"]) == ("m", "a", 3)
    assert "machine" not in outside


@pytest.mark.parametrize("name", ["secret", "ticket", "password", "tls_key", "broker_password", "token"])
def test_secrets_are_withheld(written: io.StringIO, name: str) -> None:
    logs.get("tests").info("event", **{name: "swordfish"})
    assert "swordfish" not in written.getvalue()
    assert entries(written)[0][name] == "withheld"


def test_bytes_are_withheld_whatever_their_name(written: io.StringIO) -> None:
    logs.get("tests").info("event", page=b"swordfish", other=memoryview(b"swordfish"))
    assert "swordfish" not in written.getvalue()


def test_the_hash_of_a_secret_is_none(written: io.StringIO) -> None:
    public = {"secret_hash": "abc"}
    logs.get("tests").info("event", **public)
    assert entries(written)[0].items() >= public.items()


def test_an_exception_is_its_type_text_and_place(written: io.StringIO) -> None:
    try:
        json.loads("{")
    except ValueError as error:
        logs.get("tests").error("failed", exc_info=error)
    [entry] = entries(written)
    assert entry["error"] == "JSONDecodeError"
    assert str(entry["text"]).startswith("Expecting property name")
    assert json.decoder.__file__ in str(entry["place"])
    assert "Traceback" not in written.getvalue()


def test_levels_are_respected() -> None:
    stream = io.StringIO()
    logs.configure("viaduct-test", "warning", stream)
    logs.get("tests").info("hidden")
    logs.get("tests").warning("shown")
    assert [entry["event"] for entry in entries(stream)] == ["shown"]


def test_what_libraries_log_takes_our_form(written: io.StringIO) -> None:
    logging.getLogger("some.library").warning("something %s", "odd")
    logging.getLogger("some.library").info("chatter")
    assert [(entry["event"], entry["module"]) for entry in entries(written)] == [("something odd", "some.library")]


def test_configuring_twice_writes_once(written: io.StringIO) -> None:
    again = io.StringIO()
    logs.configure("viaduct-test", stream=again)
    logging.getLogger("some.library").warning("once")
    assert written.getvalue() == ""
    assert len(entries(again)) == 1


async def test_what_a_task_is_bound_to_is_not_another_s(written: io.StringIO) -> None:
    log = logs.get("tests")

    async def work(attempt: str) -> None:
        logs.bind(machine="m", attempt=attempt, epoch=3)
        log.info(attempt)

    await asyncio.gather(work("a"), work("b"))
    log.info("neither")
    assert [(line["event"], line.get("attempt")) for line in entries(written)] == [
        ("a", "a"), ("b", "b"), ("neither", None),
    ]  # fmt: skip
