"""The seal of an API key covers all that a secret opens."""

from typing import Any

import pytest

from domain.access.keys import is_sealed, key_seal

PEPPER = b"pepper"
KEY: dict[str, Any] = {
    "id": "key_a",
    "tenant_id": "tenant_a",
    "project": None,
    "secret_number": 1,
    "mac": b"now",
    "previous_mac": None,
    "scopes": ["analyst", "auditor"],
    "legacy": False,
}


@pytest.mark.parametrize(
    "change",
    [
        {"id": "key_b"},
        {"tenant_id": "tenant_b"},
        {"project": "lab"},
        {"secret_number": 2},
        {"mac": b"other"},
        {"previous_mac": b"before"},
        {"scopes": ["analyst", "steward"]},
        {"scopes": ["analyst"]},
        {"scopes": ["analystauditor"]},
    ],
    ids=str,
)
def test_each_field_is_covered(change: dict[str, Any]) -> None:
    seal = key_seal(KEY, PEPPER)
    assert is_sealed(KEY | {"seal": seal}, PEPPER)
    assert not is_sealed(KEY | change | {"seal": seal}, PEPPER)
    assert not is_sealed(KEY | {"seal": seal}, b"another pepper")
    assert not is_sealed(KEY | {"seal": None}, PEPPER)
    assert is_sealed(KEY | change | {"seal": None, "legacy": True}, PEPPER)
