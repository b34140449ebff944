from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from orchestrator.documents import schemas

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"


def test_the_committed_schemas_are_what_the_document_types_say() -> None:
    assert schemas.differences(FOLDER) == []


@pytest.mark.parametrize("name", sorted(schemas.DOCUMENTS))
def test_every_schema_is_one(name: str) -> None:
    import json

    Draft202012Validator.check_schema(json.loads(schemas.schema_text(name)))


def test_the_migration_document_has_the_keys_of_the_contract_and_what_was_added() -> None:
    fields = schemas.DOCUMENTS["viaduct.migration.v1"].__struct_encode_fields__
    assert " ".join(fields) == (
        "schema attempt machine source destination epoch outcome transport verified_by total_ms prepare_ms downtime_ms "
        "clock downtime rounds memory ram_bytes wire_bytes pages_verified pages_mismatched guest expected blockers "
        "warnings error earlier retried_as rounds_closed limits delta_hit_rate"
    )
