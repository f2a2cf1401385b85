"""`tacit migrate`: what an operator runs before each start of a deployment."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options, output
from cli.embedded.errors import StackError

if TYPE_CHECKING:
    from domain.kit.settings import OperatorSettings
    from migrations.roles import Logins


@options.explained
def migrate(
    first_key: Annotated[
        Path | None, typer.Option(help="Where the first admin key is kept, for its owner alone. Default: it is shown.")
    ] = None,
    roles: Annotated[
        bool, typer.Option("--roles", help="Only print what the server's administrator runs once, for psql.")
    ] = False,
) -> None:
    """Operator: bring the database to this version and make the first admin key.

    Reads TACIT_ADMIN_DATABASE_URL, TACIT_API_DATABASE_URL, TACIT_WORKER_DATABASE_URL and TACIT_KEY_PEPPER, and for
    silos TACIT_SILO_DATABASE_URLS, a JSON object of URLs by the silo's name; each also from the file that
    TACIT_..._FILE names. Doing it again changes nothing.

    None of these logins is a superuser. Their roles are made once by an administrator of the server, who runs what
    `tacit migrate --roles` prints, connected to the database: it holds no password, only what Postgres keeps of them.
    """
    import sqlalchemy as sa

    from cli.embedded import secrets
    from domain.access.bootstrap import create_first_key
    from domain.kit.settings import OperatorSettings, secret_bytes
    from migrations import RolesMissing, found, head, upgrade
    from migrations.silos import BoundToASilo, bind

    settings = options.settings(OperatorSettings)
    logins = _logins(settings)
    if roles:
        sys.stdout.write(_statements(logins))
        return
    admin_url = settings.admin_database_url.get_secret_value()
    try:
        upgrade(admin_url)
        silos = dict(zip(settings.silo_database_urls, (login.name for login in logins.silos), strict=True))
        bind(admin_url, silos, logins.worker.name)
        services = (logins.api, settings.api_database_url), (logins.worker, settings.worker_database_url)
        for login, url in (*services, *zip(logins.silos, settings.silo_database_urls.values(), strict=True)):
            _require_login(login.name, url.get_secret_value())
        keep = (lambda key: None) if first_key is None else (lambda key: secrets.save(first_key, key))
        made = create_first_key(admin_url, secret_bytes(settings.key_pepper), keep)
        wrong = found(admin_url)
    except RolesMissing as error:
        sys.stdout.write(_statements(logins))
        raise StackError(
            f"The roles of the database are not as this version needs them: {error}.\n"
            "An administrator of the server runs the statements above once, connected to the database of "
            "TACIT_ADMIN_DATABASE_URL: psql --dbname tacit < statements.sql. Then run this again."
        ) from None
    except BoundToASilo as error:
        raise StackError(f"TACIT_WORKER_DATABASE_URL: {error}") from None
    except sa.exc.OperationalError:
        raise StackError(
            "the database behind TACIT_ADMIN_DATABASE_URL does not answer, or refuses the login. Where that login is "
            "not made yet: an administrator of the server runs what `tacit migrate --roles` prints"
        ) from None
    output.console.print(f"The database is at revision {head()}.")
    for line in wrong:
        output.console.print(f"An upgrade found something wrong: {line}", markup=False)
    if made is not None:
        where = f": {made}" if first_key is None else f" is in {first_key}."
        output.console.print(f"First admin key{where}", markup=False)


def _logins(settings: "OperatorSettings") -> "Logins":
    from migrations.roles import Logins, login_of

    urls = {
        "TACIT_ADMIN_DATABASE_URL": settings.admin_database_url,
        "TACIT_API_DATABASE_URL": settings.api_database_url,
        "TACIT_WORKER_DATABASE_URL": settings.worker_database_url,
        **{f"TACIT_SILO_DATABASE_URLS: {name}": url for name, url in settings.silo_database_urls.items()},
    }
    made = []
    for variable, url in urls.items():
        try:
            made.append(login_of(url.get_secret_value()))
        except ValueError as error:
            raise StackError(f"{variable}: {error}") from None
    if len({login.name for login in made}) < len(made):
        raise StackError("the database URLs must each name a login of its own")
    admin, api, worker, *silos = made
    return Logins(admin, api, worker, tuple(silos))


def _statements(logins: "Logins") -> str:
    from migrations.roles import sealed, statements

    try:
        return statements(sealed(logins))
    except ValueError as error:
        raise StackError(str(error)) from None


def _require_login(name: str, url: str) -> None:
    """Raises StackError unless this login opens the database, and has no more rights than a service."""
    import sqlalchemy as sa

    from domain.kit.database import UnsafeLogin, make_engine, require_safe_login

    engine = make_engine(url, pool_size=1)
    try:
        with engine.connect() as connection:
            require_safe_login(connection)
    except UnsafeLogin as error:
        raise StackError(str(error)) from None
    except sa.exc.OperationalError:
        raise StackError(
            f"the login {name} is refused, or has another password. An administrator of the server runs what "
            "`tacit migrate --roles` prints; then run this again"
        ) from None
    finally:
        engine.dispose()
