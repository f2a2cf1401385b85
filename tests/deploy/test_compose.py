"""docker-compose.yml by the specification's own schema, and by what this project promises about it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from domain.kit.settings import ApiSettings, OperatorSettings, WorkerSettings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# compose-spec/compose-spec at 170098ba, schema/compose-spec.json, Apache-2.0
SCHEMA = json.loads(Path(__file__).with_name("compose-spec.json").read_text())

SHARED = {"broker_url", "blob_options", "master_key"}
MAY_HAVE = {
    "postgres": {"postgres_password", "admin_database_url", "api_database_url", "worker_database_url"},
    "broker": {"broker_conf"},
    "store": {"store_user", "store_password"},
    "migrate": {"admin_database_url", "api_database_url", "worker_database_url", "key_pepper"},
    "api": SHARED | {"api_database_url", "key_pepper", "fingerprint_key", "signing_key", "policy_key"},
    "worker": SHARED | {"worker_database_url"},
    "worker-gpu": SHARED | {"worker_database_url"},
    "models": set(),
}
ONCE = {"migrate", "models"}
OURS = {"migrate", "api", "worker", "worker-gpu", "models"}


def test_the_file_follows_the_compose_specification() -> None:
    validator = jsonschema_rs.validator_for(SCHEMA)
    assert [(list(e.instance_path), e.message) for e in validator.iter_errors(COMPOSE)] == []
    assert not validator.is_valid({"services": {"api": {"imagee": "x"}}})


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_the_secrets_that_it_needs_and_no_other(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("secrets", [])) == MAY_HAVE[name]
    # Each is read from its file: none is a value in the environment or on the command line.
    mounted = re.findall(r"/run/secrets/(\w+)", json.dumps(service))
    if name == "postgres":  # the URLs are for deploy/roles.sh
        mounted += ["admin_database_url", "api_database_url", "worker_database_url"]
    assert set(mounted) == MAY_HAVE[name]
    for variable, value in service.get("environment", {}).items():
        if re.search("PASSWORD|KEY|PEPPER|SECRET|OPTIONS|URL", variable):
            assert variable.endswith("_FILE"), variable
            assert str(value).startswith("/run/secrets/"), variable


def test_every_variable_is_a_setting_of_its_process() -> None:
    kinds = {"migrate": OperatorSettings, "api": ApiSettings, "worker": WorkerSettings, "worker-gpu": WorkerSettings}
    for name, settings in kinds.items():
        known = {f"TACIT_{field.upper()}" for field in settings.model_fields}
        sent = {v for v in SERVICES[name]["environment"] if v.startswith("TACIT_")}
        assert {v for v in sent if v not in known and v.removesuffix("_FILE") not in known} == set()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened_pinned_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert service["init"] is True
    assert "no-new-privileges:true" in service["security_opt"]
    tag = service["image"].rpartition(":")[2]
    assert re.search(r"\d+\.\d+\.\d+|^17\.\d+|RELEASE\.\d{4}", tag), "an image is pinned to a release"
    if name in ONCE:
        assert service["restart"] == "no"
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert "stop_grace_period" in service
    if name in OURS:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    for needed, how in service.get("depends_on", {}).items():
        wanted = "service_completed_successfully" if needed in ONCE else "service_healthy"
        assert how["condition"] == wanted


def test_workers_and_servers_have_no_way_out() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    outside = {name for name, service in SERVICES.items() if "outside" in service["networks"]}
    assert outside == {"api", "models"}
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000"]}


def test_the_script_makes_every_secret_once(tmp_path: Path) -> None:
    script, folder = ROOT / "deploy" / "make-secrets.sh", tmp_path / "secrets"
    subprocess.run([script, folder], check=True, capture_output=True)
    wanted = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert {path.name for path in folder.iterdir() if path.is_file()} == wanted
    assert folder.stat().st_mode & 0o077 == 0
    again = subprocess.run([script, folder], check=False, capture_output=True)
    assert again.returncode != 0
    assert len({path.read_text() for path in folder.iterdir() if path.is_file()}) == len(wanted)
