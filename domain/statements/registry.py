"""A draft entry for OpenDP's registry of deployments (github.com/opendp/deployments-registry-data), at its third tier,
filled from a job's statement; the field names are that registry's, of July 2026.

What the service cannot know (who publishes, in which region, where it is described) says so, for a person to fill in.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from domain.statements.models import JobStatement

TO_FILL_IN = "To be filled in"
_PLAIN = re.compile(r"[a-z_]+")


def entry(said: JobStatement) -> dict[str, Any]:
    """The entry. said: of a job that released something."""
    return {
        "url_slug": re.sub(r"[^a-z0-9_]", "_", f"tacit_{said.job}".lower()),
        "status": "Draft",
        "tier": 3,
        "deployment": {
            "basic": _basic(said),
            "dp_variant": _variant(said),
            "privacy_loss": _loss(said),
            "deployment_model": _model(said),
            "accounting": _accounting(said),
            "implementation": _implementation(said),
            "administrative": {
                "sources": TO_FILL_IN,
                "notes": f"Made from the signed statement of job {said.job}, issued at {said.issued_at}. "
                + " ".join(f"{limit.title}: {limit.text}" for limit in said.limits),
                "registry_authors": [TO_FILL_IN],
            },
        },
    }


def _basic(said: JobStatement) -> dict[str, Any]:
    purpose = said.purpose
    return {
        "name": purpose.suffix or said.job,
        "data_curators": [TO_FILL_IN],
        "intended_use": purpose.intended_use or "Not recorded",
        "data_product_type": "Machine learning model",
        "data_product_region": TO_FILL_IN,
        "description": f"An adapter of the model {said.versions.base_model}, fine-tuned by the method "
        f"{said.versions.method} for the task {said.domain.task or 'not recorded'}. {said.synthetic}",
        "publication_date": (said.dates.released or said.issued_at)[:10],
    }


def _variant(said: JobStatement) -> dict[str, Any]:
    return {
        "variant_name": "Approximate DP",
        "data_domain": "Files of at most the declared size, of texts cut at a public length or pictures of a public "
        f"resolution, with labels from a public list where the task has any. {said.domain.sentence}",
        "unprotected_quantities": _unprotected(said),
    }


def _unprotected(said: JobStatement) -> str:
    by_decision = [
        name
        for name, yes in (("the labels", said.domain.labels_published), ("the size", said.domain.size_published))
        if yes
    ]
    if by_decision:
        return f"By the steward's decision: {' and '.join(by_decision)} of the file. And how long the job ran."
    if said.domain.size_published is None:
        return "Whether labels or size were published as found is not recorded. And how long the job ran."
    return "None but how long the job ran."


def _loss(said: JobStatement) -> dict[str, Any]:
    claim, account = said.claim, said.account
    parameters: dict[str, Any] = {"delta": claim.delta}
    if claim.epsilon is not None:
        parameters["epsilon"] = claim.epsilon
    return {
        "privacy_unit": said.unit.unit.capitalize(),
        "privacy_unit_details": f"{said.unit.sentence} Adjacent: {claim.relation}. {said.unit.bound}",
        "privacy_parameters": parameters,
        "privacy_parameters_details": f"Of this job alone. {claim.variant}. Everything that the same budget may ever "
        f"release is within epsilon {account.epsilon_claim:g} at the same delta. {_odds(said)}",
    }


def _odds(said: JobStatement) -> str:
    return " ".join(found.sentence for found in (said.odds, said.budget_odds) if found is not None)


def _model(said: JobStatement) -> dict[str, Any]:
    return {
        "model_name": "Central",
        "model_name_details": "A service with the data trains with noise; only noised results leave it.",
        "actors": " ".join(f"{one.title}: {one.text}" for one in said.trust),
        "release_type": "Many releases",
        "release_type_details": "Further jobs may learn from the same data until the budget is spent. The budget is "
        "never refilled and never resets.",
        "data_source_type": "Dynamic",
        "data_source_type_details": "Further files of the same people may be added to the same budget.",
        "access_type": "Interactive",
        "access_type_details": "Analysts choose jobs, also after seeing the results of others. They share one budget, "
        "with sub-limits at most, and no assumption is made that they do not collude.",
    }


def _accounting(said: JobStatement) -> dict[str, Any]:
    return {
        "post_processing": f"Optimiser steps, averaging and evaluation on public rows. {said.synthetic}",
        "composition": f"{said.claim.accountant}. {said.claim.variant}. Orders: "
        f"{', '.join(map(str, said.account.filter.orders))}, the main one {said.account.filter.main_order}.",
    }


def _implementation(said: JobStatement) -> dict[str, Any]:
    phases = "; then ".join(
        f"{one.name}: {one.mechanism}, noise {one.noise_multiplier:g} times the sensitivity, rate {one.sample_rate:g}, "
        f"{one.steps_authorised} steps, clipping {one.clipping} at {one.clip_norm:g}"
        for one in said.phases
    )
    made = said.versions.made_with
    libraries = "not recorded" if made is None else ", ".join(f"{name} {which}" for name, which in made.items())
    handled = " ".join(f"{one.title}: {one.text}" for one in said.handling)
    return {
        "preprocessing_and_hyperparameter_tuning": "Repeated records are dropped before, under the same unit. Every "
        "job that was run to choose numbers is charged to the same budget.",
        "mechanisms": f"{phases}. Versions: {libraries}. {handled}",
        "justification": f"{said.claim.caution} {said.purpose.sentence}",
    }


def written(found: Mapping[str, Any]) -> str:
    """YAML, every text in double quotes."""
    return "\n".join(_lines(found, "")) + "\n"


def _lines(found: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in found.items():
        assert _PLAIN.fullmatch(name)
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{name}:"
            yield from (f"{indent}  - {json.dumps(item)}" for item in value)
        elif isinstance(value, float):
            yield f"{indent}{name}: {_number(value)}"
        else:
            yield f"{indent}{name}: {json.dumps(value)}"


def _number(value: float) -> str:
    """So that YAML takes it for a number: 1.0e-05, not 1e-05."""
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    return text if not exponent or "." in mantissa else f"{mantissa}.0e{power}"
