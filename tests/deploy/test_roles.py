"""The roles of a database: as compose makes them, as a managed server's administrator does, and on what earlier versions
left. Nobody needs a superuser afterwards."""

import base64
import json
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from cli.embedded import postgres, roles
from cli.embedded import secrets as kept
from cli.main import app
from domain.kit.database import require_safe_login, require_silo_login
from ledger.budgets import balance
from ledger.guard import require_intact
from ledger.verify import verify_budget
from migrations import head, upgrade
from migrations.roles import SCHEMA, missing, verifier
from tests.conftest import LOGINS
from tests.deploy.image import as_the_image_does
from tests.ledger.test_migrations import LIVED_IN

ROOT = Path(__file__).parents[2]
SUPER = "the-superuser's-own"
Start = Callable[..., postgres.Postgres]


@pytest.fixture
def start(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Servers of their own: roles belong to a whole server."""
    running: list[postgres.Postgres] = []

    def started(superuser: str = "postgres", password: str = SUPER, major: int | None = None) -> postgres.Postgres:
        if major is not None:
            found = postgres.programs()
            monkeypatch.setattr(postgres, "programs", lambda: {major: found[major]})
        monkeypatch.setattr(postgres, "SUPERUSER", superuser)
        folder = short_folder / f"roles-{secrets.token_hex(4)}"
        server = postgres.start(folder, password=password, log=folder.with_suffix(".log"), options=["fsync=off"])
        monkeypatch.undo()
        running.append(server)
        return server

    yield started
    for server in running:
        server.stop()


def run(url: str, statements: str) -> None:
    """As psql sends a file, and refused as a whole or not at all."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statements.encode())


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return connection.execute(query.encode()).fetchall()


def environment(server: postgres.Postgres, database: str = "tacit") -> dict[str, str]:
    """What the operator's container has."""
    return {
        "TACIT_ADMIN_DATABASE_URL": server.url(LOGINS.admin.name, LOGINS.admin.password, database),
        "TACIT_API_DATABASE_URL": server.url(LOGINS.api.name, LOGINS.api.password, database),
        "TACIT_WORKER_DATABASE_URL": server.url(LOGINS.worker.name, LOGINS.worker.password, database),
        "TACIT_KEY_PEPPER": "11" * 32,
    }


def stand(url_of: Callable[[str], str], superuser_url: str) -> None:
    """Every login opens the database and has its place; nobody but the server's superuser is one, and nobody is its user."""
    for name in ("admin", "api", "worker"):
        engine = sa.create_engine(url_of(name), poolclass=sa.NullPool)
        with engine.connect() as connection:
            require_intact(connection)
            if name == "admin":
                assert missing(connection) == []
            else:
                require_safe_login(connection)
    facts = "SELECT rolname, rolsuper, rolcanlogin FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"
    found = {name: (strong, opens) for name, strong, opens in rows(superuser_url, facts)}
    assert [name for name, (strong, _) in found.items() if strong] == ["postgres"]
    assert [name for name, (_, opens) in found.items() if not opens] == ["tacit_api", "tacit_owner", "tacit_worker"]
    others = "SELECT count(*) FROM pg_stat_activity WHERE usesysid = 10 AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    assert rows(superuser_url, others) == [(0,)]


def of_environment(values: dict[str, str]) -> Callable[[str], str]:
    return lambda name: values[f"TACIT_{name.upper()}_DATABASE_URL"]


def test_compose_makes_the_roles_on_a_new_volume(start: Start, tmp_path: Path) -> None:
    """deploy/roles.sh as the image runs it, with psql, on a plain initdb, by the secrets of deploy/make-secrets.sh."""
    server = start()
    subprocess.run(["sh", ROOT / "deploy" / "make-secrets.sh", tmp_path / "secrets"], check=True)
    superuser = server.url("postgres", SUPER, "tacit")
    for _ in range(2):  # again is harmless
        done = as_the_image_does(server, SUPER, tmp_path / "secrets")
        assert done.stdout == ""
        urls = {n: (tmp_path / "secrets" / f"{n}_database_url").read_text().strip() for n in ("admin", "api", "worker")}
        for url in urls.values():
            assert sa.make_url(url).password not in done.stderr  # type: ignore[operator]
    here = f"@/tacit?host={server.socket_folder}&port={postgres.PORT}"
    urls = {name: url.replace("@postgres:5432/tacit", here) for name, url in urls.items()}
    upgrade(urls["admin"])
    stand(urls.__getitem__, superuser)
    connect = "SELECT has_database_privilege('tacit_api_login', d, 'CONNECT') FROM unnest('{postgres,template1,tacit}'::text[]) d"
    assert rows(superuser, connect) == [(False,), (False,), (True,)]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("major", sorted(postgres.programs()) or [0])
def test_a_managed_servers_administrator_is_no_superuser(start: Start, major: int) -> None:
    server = start(major=major)
    run(server.url("postgres", SUPER, "postgres"), "CREATE ROLE landlord LOGIN CREATEROLE CREATEDB PASSWORD 'landlord'")
    landlord = server.url("landlord", "landlord", "postgres")
    run(landlord, "CREATE DATABASE tacit")
    values = environment(server)
    refused = CliRunner().invoke(app, ["migrate"], env=values)
    assert refused.exit_code == 1
    assert "tacit migrate --roles" in refused.output
    printed = CliRunner().invoke(app, ["migrate", "--roles"], env=values)
    assert printed.exit_code == 0
    assert not any(login.password in printed.output for login in (LOGINS.admin, LOGINS.api, LOGINS.worker))
    for _ in range(2):
        run(server.url("landlord", "landlord", "tacit"), printed.stdout)
    done = CliRunner().invoke(app, ["migrate"], env=values)
    assert done.exit_code == 0, done.output
    stand(of_environment(values), server.url("postgres", SUPER, "tacit"))
    # The landlord goes back to not being of the family.
    usage = "SELECT pg_has_role('landlord', 'tacit_owner', 'USAGE')"
    assert rows(server.url("postgres", SUPER, "tacit"), usage) == [(False,)]


def test_a_silos_login_is_made_and_bound_to_it(start: Start) -> None:
    server = start()
    run(server.url("postgres", SUPER, "postgres"), "CREATE DATABASE tacit")
    superuser, ward = server.url("postgres", SUPER, "tacit"), server.url("ward_login", "ward-password", "tacit")
    plain = environment(server)
    values = plain | {"TACIT_SILO_DATABASE_URLS": json.dumps({"ward": ward})}
    run(superuser, CliRunner().invoke(app, ["migrate", "--roles"], env=plain).stdout)
    lacking = CliRunner().invoke(app, ["migrate"], env=values)
    assert lacking.exit_code == 1
    assert "ward_login must be a member of tacit_worker" in " ".join(lacking.output.split())
    printed = CliRunner().invoke(app, ["migrate", "--roles"], env=values).stdout
    assert "ward-password" not in printed
    for _ in range(2):
        run(superuser, printed)
        done = CliRunner().invoke(app, ["migrate"], env=values)
        assert done.exit_code == 0, done.output
    engine = sa.create_engine(ward, poolclass=sa.NullPool)
    with engine.connect() as connection:
        require_safe_login(connection)
        require_silo_login(connection, "ward")
    CliRunner().invoke(app, ["migrate"], env=plain)  # what is not named stays bound
    assert rows(superuser, "SELECT login, silo FROM ledger.silo_login") == [("ward_login", "ward")]
    swapped = CliRunner().invoke(app, ["migrate"], env=plain | {"TACIT_WORKER_DATABASE_URL": ward})
    assert swapped.exit_code == 1
    assert "works for the silo ward" in " ".join(swapped.output.split())


def as_before(server: postgres.Postgres) -> None:
    """A database of the revision before the roles: its operator's login is the superuser, and owns everything."""
    url = server.url(LOGINS.admin.name, LOGINS.admin.password, "tacit")
    run(server.url(LOGINS.admin.name, LOGINS.admin.password, "postgres"), "CREATE DATABASE tacit")
    run(
        url,
        "CREATE TABLE alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY); INSERT INTO alembic_version VALUES ('0011')",
    )
    for folder in sorted(SCHEMA.parent.glob("00??")):
        if folder.name <= "0011":
            for file in sorted(folder.glob("*.sql")):
                run(url, file.read_text())
    for login, password in (("tacit_api", LOGINS.api.password), ("tacit_worker", LOGINS.worker.password)):
        run(url, f"ALTER ROLE {login} LOGIN PASSWORD '{password}'")
    run(url, LIVED_IN)


def kept_whole(url: str, before: list[tuple[object, ...]]) -> None:
    assert rows(url, "SELECT cap, spent, reserved, head_hash FROM ledger.budget") == before
    assert rows(url, "SELECT version_num FROM alembic_version") == [(head(),)]
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        assert verify_budget(connection, "b") == []
        assert balance(connection, "b").filter.orders[-1] == 64


def test_a_deployment_of_an_earlier_version_prints_what_its_administrator_runs_once(start: Start) -> None:
    server = start(superuser=LOGINS.admin.name, password=LOGINS.admin.password)
    as_before(server)
    values = environment(server)
    url = values["TACIT_ADMIN_DATABASE_URL"]
    before = rows(url, "SELECT cap, spent, reserved, head_hash FROM ledger.budget")
    refused = CliRunner().invoke(app, ["migrate"], env=values)
    assert refused.exit_code == 1
    assert "is a superuser" in refused.output
    printed = CliRunner().invoke(app, ["migrate", "--roles"], env=values).stdout
    assert SCHEMA.read_text().splitlines()[0] in refused.stdout  # the same, with salts of its own
    # Cut off between any two statements, then run again as a whole.
    parts = re.split(r"(?<=;)\n\n", printed)
    assert len(parts) >= 4
    for number in range(1, len(parts)):
        login = LOGINS.admin.name if number <= 2 else "postgres"  # it is renamed by the second
        run(server.url(login, LOGINS.admin.password, "tacit"), "\n\n".join(parts[:number]))
    for _ in range(2):
        run(server.url("postgres", LOGINS.admin.password, "tacit"), printed)
    done = CliRunner().invoke(app, ["migrate"], env=values)
    assert done.exit_code == 0, done.output
    stand(of_environment(values), server.url("postgres", LOGINS.admin.password, "tacit"))
    kept_whole(url, before)


def test_logins_that_are_the_groups_themselves_go_on(start: Start) -> None:
    """Secrets that name tacit_api and tacit_worker, as earlier versions made them."""
    server = start(superuser=LOGINS.admin.name, password=LOGINS.admin.password)
    as_before(server)
    values = environment(server)
    for name in ("api", "worker"):
        url = values[f"TACIT_{name.upper()}_DATABASE_URL"]
        values[f"TACIT_{name.upper()}_DATABASE_URL"] = url.replace(f"tacit_{name}_login", f"tacit_{name}")
    run(
        server.url(LOGINS.admin.name, LOGINS.admin.password, "tacit"),
        CliRunner().invoke(app, ["migrate", "--roles"], env=values).stdout,
    )
    assert CliRunner().invoke(app, ["migrate"], env=values).exit_code == 0
    for name in ("api", "worker"):
        with sa.create_engine(of_environment(values)(name), poolclass=sa.NullPool).connect() as connection:
            require_safe_login(connection)
            require_intact(connection)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("cut_off", [None, "renamed", "half"])
def test_an_embedded_folder_of_an_earlier_version_gets_its_roles(
    start: Start, tmp_path: Path, cut_off: str | None
) -> None:
    known = kept.Secrets(
        admin_password=LOGINS.admin.password, api_password=LOGINS.api.password, worker_password=LOGINS.worker.password
    )
    server = start(superuser=LOGINS.admin.name, password=known.admin_password)
    as_before(server)
    url = server.url(LOGINS.admin.name, known.admin_password, "tacit")
    before = rows(url, "SELECT cap, spent, reserved, head_hash FROM ledger.budget")
    if cut_off == "half":  # a statement fails after the rename: nothing of it stays
        with pytest.raises(psycopg.Error):
            run(url, CliRunner().invoke(app, ["migrate", "--roles"], env=environment(server)).stdout + ";SELECT 1/0")
        assert rows(url, "SELECT rolsuper FROM pg_roles WHERE rolname = 'tacit_admin'") == [(True,)]
    roles.establish(server, known, "tacit")
    if cut_off == "renamed":  # the roles stand, and the upgrade was never begun
        roles.establish(server, known, "tacit")
    upgrade(url)
    superuser = server.url("postgres", known.superuser_password, "tacit")
    stand(of_environment(environment(server)), superuser)
    kept_whole(url, before)
    with pytest.raises(psycopg.OperationalError):  # the operator's password is not the superuser's any more
        rows(server.url("postgres", known.admin_password, "tacit"), "SELECT 1")


def test_a_verifier_is_what_postgres_itself_keeps() -> None:
    """RFC 7677's example: user `user`, password `pencil`."""
    theirs = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    assert verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")) == theirs
    with pytest.raises(ValueError, match="ASCII"):
        verifier("pässword")
