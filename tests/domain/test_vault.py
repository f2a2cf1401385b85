"""Keys of blobs: behind a master key in a file or a program, destroyed with their blob, wrapped again on demand."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from domain.kit.settings import KeySettings
from domain.kit.tables import data_key
from domain.storage.masters import KeyUnavailable, Masters, NoMasterKey, read_masters
from domain.storage.vault import Vault, open_vault, rewrap
from tests.conftest import Database

OLD, NEW = "11" * 32, "22" * 32
KMS = """#!/bin/sh
# A stand-in for a key service: it refuses an unknown context and shifts the bytes of the rest.
case "$TACIT_KMS_CONTEXT" in files/*) ;; *) exit 3 ;; esac
case "$1" in
  wrap) base64 -d | tr '\\000-\\377' '\\001-\\377\\000' | base64 -w0 ;;
  unwrap) base64 -d | tr '\\001-\\377\\000' '\\000-\\377' | base64 -w0 ;;
  *) exit 4 ;;
esac
"""


def masters(key: str | None = None, command: Path | str | None = None) -> Masters:
    secret = None if key is None else SecretStr(key)
    return read_masters(KeySettings(master_key=secret, kms_command=None if command is None else str(command)))


@pytest.fixture(params=["api", "worker"])
def engine(request: pytest.FixtureRequest, database: Database) -> Iterator[sa.Engine]:
    made = sa.create_engine(getattr(database, f"{request.param}_url"), poolclass=sa.NullPool)
    yield made
    made.dispose()


def test_a_key_is_kept_wrapped_and_gone_when_destroyed(engine: sa.Engine) -> None:
    vault = open_vault(masters(OLD), engine)
    key = vault.new_key("files/a/rows")
    assert vault.key("files/a/rows") == vault.new_key("files/a/rows") == key
    assert vault.new_key("files/b/rows") != key
    with engine.connect() as connection:
        wrapped = connection.execute(sa.select(data_key.c.wrapped)).scalars().all()
    assert not any(key in one for one in wrapped)
    vault.destroy("files/a/rows")
    with pytest.raises(FileNotFoundError):
        vault.key("files/a/rows")
    vault.new_key("files_b")
    vault.destroy_all("files/")
    with engine.connect() as connection:
        assert connection.execute(sa.select(data_key.c.blob)).scalars().all() == ["files_b"]


def test_a_wrapped_key_serves_its_own_blob_alone(database: Database) -> None:
    engine = sa.create_engine(database.admin_url, poolclass=sa.NullPool)
    vault = open_vault(masters(OLD), engine)
    vault.new_key("files/a"), vault.new_key("files/b")
    with engine.begin() as connection:
        other = sa.select(data_key.c.wrapped).where(data_key.c.blob == "files/b").scalar_subquery()
        connection.execute(sa.update(data_key).where(data_key.c.blob == "files/a").values(wrapped=other))
    with pytest.raises(NoMasterKey, match="files/a"):
        vault.key("files/a")


@pytest.mark.parametrize("key", ["", "aa", "zz" * 32, OLD + "\n" + "aa", None])
def test_master_keys_that_are_none(key: str | None) -> None:
    with pytest.raises(NoMasterKey, match="openssl rand -hex 32") as refused:
        masters(key)
    assert not key or key not in str(refused.value)


def test_a_service_does_not_start_without_the_master_key_of_what_there_is(engine: sa.Engine) -> None:
    open_vault(masters(OLD), engine).new_key("files/a")
    with pytest.raises(NoMasterKey, match="TACIT_MASTER_KEY does not hold"):
        open_vault(masters(NEW), engine)


def test_a_key_service_wraps_in_place_of_the_file(engine: sa.Engine, tmp_path: Path) -> None:
    program = tmp_path / "kms"
    program.write_text(KMS)
    program.chmod(0o700)
    before = open_vault(masters(OLD), engine).new_key("files/a")
    vault = open_vault(masters(OLD, program), engine)
    key = vault.new_key("files/b")
    assert (vault.key("files/a"), vault.key("files/b")) == (before, key)
    with pytest.raises(KeyUnavailable, match="ended with 3"):
        vault.new_key("jobs/c")
    with pytest.raises(KeyUnavailable, match="cannot be run"):
        open_vault(masters(OLD, tmp_path / "none"), engine).new_key("files/c")
    with pytest.raises(KeyUnavailable, match="base64"):
        open_vault(masters(OLD, "echo what?"), engine).new_key("files/c")
    with pytest.raises(NoMasterKey, match="TACIT_KMS_COMMAND is not set"):
        open_vault(masters(OLD), engine)


def test_the_master_key_is_changed_while_services_run(database: Database) -> None:
    admin = sa.create_engine(database.admin_url, poolclass=sa.NullPool)
    old = Vault(admin, masters(OLD))
    keys = {f"files/{i}": old.new_key(f"files/{i}") for i in range(7)}
    both = Vault(admin, masters(f"{NEW}\n{OLD}\n"))
    assert {name: both.key(name) for name in keys} == keys
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TACIT_")}
    environment |= {"TACIT_ADMIN_DATABASE_URL": database.admin_url, "TACIT_MASTER_KEY": f"{NEW} {OLD}"}
    done = subprocess.run(
        [sys.executable, "-m", "domain.storage.vault"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "7 keys are under another master key now.\n"
    assert rewrap(admin, masters(NEW)) == 0
    retired = open_vault(masters(NEW), admin)
    assert {name: retired.key(name) for name in keys} == keys
