"""The draft entry for a registry of deployments: its fields, its form, and the registry's own schema where it is at hand."""

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema_rs import validator_for

from domain.statements import registry
from domain.statements.models import JobStatement
from tests.api.conftest import JOBS, World
from tests.api.test_statements import WORDS, ended, written_down

pytestmark = pytest.mark.usefixtures("quick_checks")
SCHEMA = os.environ.get("TACIT_REGISTRY_SCHEMA", "")
"""schemas/deployments-schema.yaml of a checkout of github.com/opendp/deployments-registry-data."""
TIER_3 = {
    "basic": {"name", "data_curators", "intended_use", "data_product_type", "data_product_region", "description"}
    | {"publication_date"},
    "dp_variant": {"variant_name", "data_domain", "unprotected_quantities"},
    "privacy_loss": {"privacy_unit", "privacy_unit_details", "privacy_parameters", "privacy_parameters_details"},
    "deployment_model": {"model_name", "model_name_details", "actors", "release_type", "release_type_details"}
    | {"data_source_type", "data_source_type_details", "access_type", "access_type_details"},
    "accounting": {"post_processing", "composition"},
    "implementation": {"preprocessing_and_hyperparameter_tuning", "mechanisms", "justification"},
    "administrative": {"sources", "notes", "registry_authors"},
}


@pytest.fixture(scope="module")
def said(world: World, quick_checks: None) -> JobStatement:
    job = world.submit(world.private_file()["id"], 2.0, **WORDS)
    with world.engine("worker").connect() as at_work:
        ended(world, at_work, job, report=written_down(job))
    return JobStatement.model_validate(world.get(f"{JOBS}/{job['id']}/statement").json())


def entry(said: JobStatement) -> dict[str, Any]:
    """As a reader of YAML sees it."""
    found: dict[str, Any] = yaml.safe_load(registry.written(registry.entry(said)))
    return found


def test_all_fields_of_the_third_tier_are_filled(said: JobStatement) -> None:
    found = entry(said)
    assert (found["status"], found["tier"]) == ("Draft", 3)
    assert {name: set(part) for name, part in found["deployment"].items()} == TIER_3
    assert all(value for part in found["deployment"].values() for value in part.values())
    loss = found["deployment"]["privacy_loss"]
    assert loss["privacy_parameters"] == {"epsilon": said.claim.epsilon, "delta": said.claim.delta}
    assert said.odds is not None
    assert said.odds.sentence in loss["privacy_parameters_details"]
    date.fromisoformat(found["deployment"]["basic"]["publication_date"])


def test_what_the_service_cannot_know_is_left_to_a_person(said: JobStatement) -> None:
    basic = entry(said)["deployment"]["basic"]
    assert (basic["data_curators"], basic["data_product_region"]) == (["To be filled in"], "To be filled in")
    unknown = said.model_copy(update={"purpose": said.purpose.model_copy(update={"intended_use": None})})
    assert entry(unknown)["deployment"]["basic"]["intended_use"] == "Not recorded"


def test_texts_are_quoted_as_the_registry_wants_them(said: JobStatement) -> None:
    """Plain, or in quotes; a small delta is a number."""
    bad = "a: 'b' \"c\" # d\n\\e {f} é"
    odd = said.model_copy(update={"purpose": said.purpose.model_copy(update={"intended_use": bad})})
    assert entry(odd)["deployment"]["basic"]["intended_use"] == bad
    styles = {token.style for token in yaml.scan(registry.written(registry.entry(odd))) if hasattr(token, "style")}
    assert styles <= {None, '"'}


@pytest.mark.skipif(not SCHEMA, reason="TACIT_REGISTRY_SCHEMA names no schema")
def test_an_entry_is_valid_by_the_registrys_own_schema(said: JobStatement) -> None:
    schema = yaml.safe_load(Path(SCHEMA).read_text())
    validator_for(schema, validate_formats=True).validate(entry(said))
    broken = entry(said) | {"tier": 4}
    assert not validator_for(schema).is_valid(json.loads(json.dumps(broken)))
