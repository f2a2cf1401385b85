"""`tacit migrate`: what an operator runs before each start of a deployment."""

from pathlib import Path
from typing import Annotated

import typer

from cli import options, output
from cli.embedded.errors import StackError


@options.explained
def migrate(
    first_key: Annotated[
        Path | None, typer.Option(help="Where the first admin key is kept, for its owner alone. Default: it is shown.")
    ] = None,
) -> None:
    """Operator: bring the database to this version, give the service logins their passwords, make the first admin key.

    Reads TACIT_ADMIN_DATABASE_URL, TACIT_API_DATABASE_URL, TACIT_WORKER_DATABASE_URL (whose passwords the logins get)
    and TACIT_KEY_PEPPER, each also from the file that TACIT_..._FILE names. Doing it again changes nothing.
    """
    import sqlalchemy as sa

    from cli.embedded import secrets
    from domain.bootstrap import create_first_key, set_service_passwords
    from domain.settings import OperatorSettings, secret_bytes
    from migrations import head, upgrade

    settings = options.settings(OperatorSettings)
    admin_url = settings.admin_database_url.get_secret_value()
    passwords = []
    for login, url in (("tacit_api", settings.api_database_url), ("tacit_worker", settings.worker_database_url)):
        parsed = sa.make_url(url.get_secret_value())
        if parsed.username != login or not parsed.password:
            raise StackError(f"{login.upper()}_DATABASE_URL does not name the login {login} and a password")
        passwords.append(str(parsed.password))
    try:
        upgrade(admin_url)
        set_service_passwords(admin_url, *passwords)
        keep = (lambda key: None) if first_key is None else (lambda key: secrets.save(first_key, key))
        made = create_first_key(admin_url, secret_bytes(settings.key_pepper), keep)
    except sa.exc.OperationalError:
        raise StackError("the database behind TACIT_ADMIN_DATABASE_URL does not answer, or refuses the login") from None
    output.console.print(f"The database is at revision {head()}.")
    if made is not None:
        where = f": {made}" if first_key is None else f" is in {first_key}."
        output.console.print(f"First admin key{where}", markup=False)
