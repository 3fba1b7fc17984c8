"""The schema of a status for scripts."""

from harness.schemas.status import status_schema


def test_every_field_has_its_meaning_and_is_always_there() -> None:
    schema = status_schema()
    for name, part in [("Status", schema), *schema["$defs"].items()]:
        if name != "Counts":
            assert [key for key, value in part["properties"].items() if not value.get("description")] == [], name
            assert set(part["required"]) == set(part["properties"]), name
