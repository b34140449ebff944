import json
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vmm.assembly.document_faults import Fault, InvalidDocument, faults_of, read_toml


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


def test_one_fault_is_one_line() -> None:
    assert str(InvalidDocument([Fault("a.toml", "k", "Wrong", "b, c")])) == "a.toml: k: Wrong (allowed: b, c)"


def test_toml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[a]\nb = 1\n")
    assert read_toml(path) == {"a": {"b": 1}}


@pytest.mark.parametrize("content", [b"a = = 1", b"\xff\xfe", b"a = 1\na = 2"])
def test_what_is_not_toml_is_a_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidDocument, match="Not TOML") as caught:
        read_toml(path)
    assert caught.value.faults[0].file == str(path)


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match="Cannot be read: No such file"):
        read_toml(tmp_path / "none.toml")
