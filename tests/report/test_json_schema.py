"""docs/report.schema.json is what the code makes, describes every field, and accepts real reports alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ran_deploy.report import report_to_json
from ran_deploy.report.field_descriptions import DESCRIPTIONS
from ran_deploy.report.json_schema import report_schema, schema_to_json
from ran_deploy.report.schema import SCHEMA_VERSION

PUBLISHED = Path(__file__).parents[2] / "docs" / "report.schema.json"
REMEDY = (
    "write it again: python -c 'import sys; from ran_deploy.report.json_schema import schema_to_json; "
    "sys.stdout.buffer.write(schema_to_json())' > docs/report.schema.json"
)


@pytest.fixture(scope="module")
def validator():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(PUBLISHED.read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_published_schema_is_what_the_code_makes():
    assert PUBLISHED.read_bytes() == schema_to_json(), REMEDY


def test_it_names_itself_and_its_version():
    schema = report_schema()
    assert schema["title"] == "ran-deploy validation report"
    assert schema["$id"].endswith(f":{SCHEMA_VERSION}")
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_field_is_described_and_no_other():
    definitions = report_schema()["$defs"]
    fields = {name: set(content["properties"]) for name, content in definitions.items() if "properties" in content}
    assert fields == {name: set(described) for name, described in DESCRIPTIONS.items()}
    for content in definitions.values():
        assert content["description"].endswith(".")
        assert all(field["description"].endswith(".") for field in content.get("properties", {}).values())


def test_reports_with_and_without_details_follow_it(validator, report, detailed):
    for made in (report, detailed):
        validator.validate(json.loads(report_to_json(made), parse_constant=pytest.fail))


@pytest.mark.parametrize(
    ("field", "value"), [("passed", None), ("engines", None), ("drop_pp", "0.1"), ("layers", {"dialect": "tensorrt"})]
)
def test_what_is_no_report_does_not(validator, detailed, field, value):
    content = json.loads(report_to_json(detailed))
    if value is None:
        del content[field]
    else:
        content[field] = value
    assert not validator.is_valid(content)
