"""The roles of a database: the statements that its administrator runs once, and what is not yet as they leave it."""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

OWNER = "tacit_owner"
SCHEMA = Path(__file__).parent / "sql" / "roles.sql"
OF_SILO = SCHEMA.with_name("roles_silo.sql")
MISSING = SCHEMA.with_name("roles_missing.sql")
_ITERATIONS = 4096
_VARIABLE = re.compile(r":'(\w+)'")


@dataclass(frozen=True)
class Login:
    """A role that a process logs in as. The password may be a SCRAM verifier."""

    name: str
    password: str


@dataclass(frozen=True)
class Logins:
    """The three that an installation needs, and one for the worker of each silo."""

    admin: Login
    api: Login
    worker: Login
    silos: tuple[Login, ...] = ()


def login_of(url: str) -> Login:
    """The login that a database URL names. Raises ValueError when it names no user or no password."""
    parsed = sa.make_url(url)
    if not parsed.username or not isinstance(parsed.password, str) or not parsed.password:
        raise ValueError("the URL names no user with a password")
    return Login(parsed.username, parsed.password)


def statements(logins: Logins) -> str:
    """roles.sql with its variables filled in, as a superuser or a managed server's administrator runs it; then, for
    each silo, roles_silo.sql."""
    made = [_filled(SCHEMA, admin=logins.admin, api=logins.api, worker=logins.worker)]
    return "".join(made + [_filled(OF_SILO, silo=login) for login in logins.silos])


def sealed(logins: Logins) -> Logins:
    """The same with verifiers in place of passwords: what may be shown. Raises ValueError for other than ASCII."""

    def closed(login: Login) -> Login:
        return Login(login.name, verifier(login.password))

    silos = tuple(closed(login) for login in logins.silos)
    return Logins(closed(logins.admin), closed(logins.api), closed(logins.worker), silos)


def verifier(password: str, salt: bytes | None = None) -> str:
    """What Postgres keeps of a password (RFC 5803): it checks one, and no one can be read from it.

    Raises ValueError for a password with characters that SASLprep may change (RFC 4013).
    """
    if not (password.isascii() and password.isprintable()):
        raise ValueError("a database password must be of printable ASCII characters")
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_base64(salt)}${_base64(stored)}:{_base64(server)}"


def missing(connection: sa.Connection) -> list[str]:
    """What the roles lack, seen by the operator's login; empty when `upgrade` may run."""
    return list(connection.execute(sa.text(MISSING.read_text(encoding="utf-8"))).scalars())


def _filled(path: Path, **logins: Login) -> str:
    values = {
        name + part: value
        for name, login in logins.items()
        for part, value in (("", login.name), ("_password", login.password))
    }
    return _VARIABLE.sub(lambda found: _literal(values[found[1]]), path.read_text(encoding="utf-8"))


def _literal(value: str) -> str:
    if "\0" in value or "\\" in value:
        raise ValueError("a database login or password must not hold a backslash")
    return "'" + value.replace("'", "''") + "'"


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
