"""`tacit tenants`: organisations that share an installation and see nothing of one another."""

from pathlib import Path
from typing import Annotated

import typer

from cli import options, output
from cli.commands.ledger import DATA, AdminUrl, Data
from cli.embedded.errors import StackError

app = options.group("Tenants: organisations that share an installation and see nothing of one another.")
Pepper = Annotated[Path | None, typer.Option(help="File with the API's TACIT_KEY_PEPPER. Default: the one of --data.")]
FirstKey = Annotated[Path | None, typer.Option(help="Write the tenant's first key to this file instead of showing it.")]


@app.command()
@options.explained
def create(
    name: Annotated[str, typer.Argument(help="Small letters, digits and hyphens; the id is tenant_NAME.")],
    data: Data = DATA,
    admin_url: AdminUrl = None,
    key_pepper: Pepper = None,
    first_key: FirstKey = None,
) -> None:
    """Operator: a tenant of its own, with a first key of every scope, shown once.

    Others name it by its id, as in an invitation to a federated job; whether a tenant exists is told to nobody.

    ```text
    tacit tenants create clinic-b
    tacit tenants create clinic-b --first-key clinic-b.key
    ```
    """
    import sqlalchemy as sa

    from cli.embedded import secrets, stack
    from domain.access.bootstrap import create_tenant
    from domain.kit.refusals import Refusal

    data = data.absolute()
    url = admin_url or stack.admin_url(data)
    try:
        pepper = bytes.fromhex(key_pepper.read_text().strip() if key_pepper else secrets.load(data).key_pepper)
    except (OSError, ValueError) as error:
        raise StackError(f"--key-pepper {key_pepper}: not a file with hexadecimal digits ({error})") from None

    def keep(key: str) -> None:
        if first_key is None:
            output.console.print(f"First admin key, shown once: {key}", markup=False)
        else:
            secrets.save(first_key, key)

    try:
        made = create_tenant(url, name, pepper, keep)
    except Refusal as refusal:
        options.fail(refusal.message)
    except sa.exc.OperationalError:
        raise StackError("the administrator's database does not answer, or refuses the login") from None
    output.console.print(f"Tenant {made}.")
