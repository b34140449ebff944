import json
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vmm.assembly.document_faults import MAX_DEPTH, MAX_DOCUMENT, Fault, InvalidDocument, faults_of, read_toml


class _Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    colour: Literal["red", "blue"] = "red"
    count: int = Field(1, ge=1)


class _Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    inner: tuple[_Inner, ...] = ()
    single: _Inner | None = None


def test_every_fault_is_named_with_key_and_allowed_values() -> None:
    document = {"inner": [{"colour": "green", "count": 0, "kount": 1}], "single": {"colour": 1}, "x": 1}
    with pytest.raises(ValidationError) as caught:
        _Outer.model_validate_json(json.dumps(document))
    faults = {fault.key: fault for fault in faults_of(caught.value, "a.toml", _Outer)}
    assert faults["name"] == Fault("a.toml", "name", "Required key is missing", "")
    assert faults["inner[0].colour"].allowed == "'red' or 'blue'"
    assert faults["inner[0].count"] == Fault("a.toml", "inner[0].count", "Out of range: 0", "at least 1")
    assert faults["inner[0].kount"] == Fault("a.toml", "inner[0].kount", "Unknown key", "colour, count")
    assert faults["single.colour"].problem == "Unknown value 1"
    assert faults["x"].allowed == "name, inner, single"
    text = str(InvalidDocument(faults.values()))
    assert text.splitlines()[0] == "a.toml: 6 faults"
    assert len(text.splitlines()) == 7


class _Named(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    table: dict[str, _Inner]


def test_an_unknown_key_below_a_name_that_somebody_chose_is_answered_with_the_keys_there() -> None:
    with pytest.raises(ValidationError) as caught:
        _Named.model_validate({"table": {"chosen": {"kount": 1}}})
    (fault,) = faults_of(caught.value, "a.toml", _Named)
    assert (fault.key, fault.allowed) == ("table.chosen.kount", "colour, count")


def test_a_number_that_cannot_be_written_out_is_a_fault_all_the_same() -> None:
    with pytest.raises(ValidationError) as caught:
        _Outer.model_validate({"name": 16**5000})
    assert [fault.allowed for fault in faults_of(caught.value, "a.toml", _Outer)] == ["text in quotes"]


def test_one_fault_is_one_line() -> None:
    assert str(InvalidDocument([Fault("a.toml", "k", "Wrong", "b, c")])) == "a.toml: k: Wrong (allowed: b, c)"


def test_toml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[a]\nb = 1\n")
    assert read_toml(path) == {"a": {"b": 1}}


@pytest.mark.parametrize("content", [b"a = = 1", b"\xff\xfe", b"a = 1\na = 2", b"a = " + b"9" * 5000])
def test_what_is_not_toml_is_a_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidDocument, match="Not TOML") as caught:
        read_toml(path)
    assert caught.value.faults[0].file == str(path)


@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"[" * 3000,
        b"a = " + b"{b=" * 30 + b"1" + b"}" * 30,
        b".".join([b"a"] * 40) + b" = 1",
        b"[" + b".".join([b'"a b"'] * 40) + b"]",
        b"a = 1\n" * (1 << 18),
    ],
)
def test_what_is_larger_or_deeper_than_a_person_writes_is_a_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidDocument, match=f"at most ({MAX_DEPTH} deep|{MAX_DOCUMENT} bytes)"):
        read_toml(path)


def test_dots_in_text_are_no_depth(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'a = "see {"." * 100} and 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5, 10.0.0.6, 10.0.0.7"')
    assert "see" in str(read_toml(path)["a"])


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match="Cannot be read: No such file"):
        read_toml(tmp_path / "none.toml")
