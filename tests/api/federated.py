"""Tenant one invites tenant two, and what both say to each other on the way."""

from typing import Any

import httpx

from tests.api.attacks import INVITATIONS
from tests.api.conftest import JOBS, World

METHOD = "federated-lora"
OPTIONS = {"r": 2, "rounds": 4, "hyperparameters": {"batch_size": 20}}


def method(**options: Any) -> dict[str, Any]:
    return {"type": METHOD, METHOD: OPTIONS | options}


def invite(
    world: World, file: str, guest: str = "tenant_two", scope: str = "analyst", tenant: str = "one", **body: Any
) -> httpx.Response:
    asked = {"guest": guest, "model": "minilm-l6", "training_file": file, "method": method()}
    return world.post(INVITATIONS, asked | body, scope, tenant=tenant)


def accept(
    world: World, invitation: str, file: str, scope: str = "steward", tenant: str = "two", **body: Any
) -> httpx.Response:
    asked = {"training_file": file, "privacy": {"epsilon": 2.0}}
    return world.post(f"{INVITATIONS}/{invitation}/accept", asked | body, scope, tenant=tenant)


def accepted(world: World, file: str, theirs: str, **body: Any) -> str:
    """An invitation of tenant one's that tenant two has accepted with a file of its own."""
    made: str = invite(world, file, **body).json()["id"]
    answer = accept(world, made, theirs)
    assert answer.status_code == 200, answer.text
    return made


def federated_body(file: str, silos: list[str], epsilon: float = 2.0, **options: Any) -> dict[str, Any]:
    chosen = method(silos=silos, **options)
    return {"model": "minilm-l6", "training_file": file, "method": chosen, "privacy": {"epsilon": epsilon}}


def federated(world: World, file: str, silos: list[str], **options: Any) -> dict[str, Any]:
    """A submitted job of tenant one's."""
    answer = world.post(JOBS, federated_body(file, silos, **options))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made
