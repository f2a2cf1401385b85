"""`tacit ledger`: checking it, keeping receipts, and the decisions that only the operator may take."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import options, output
from cli.client import ApiError, connect
from cli.embedded.errors import StackError

app = options.group("The ledger: verification, receipts, freezing, limits and corrections.")
ReasonOption = Annotated[str, typer.Option(help="Why; it becomes part of the ledger.")]
AdminUrl = Annotated[
    str | None,
    typer.Option(
        envvar="TACIT_ADMIN_DATABASE_URL",
        help="The administrator's database. Default: the one of --data, while it runs.",
    ),
]
PolicyKey = Annotated[
    Path | None, typer.Option(help="File with the policy key's seed in hexadecimal. Default: the one of --data.")
]
Data = Annotated[Path, typer.Option(help="Data folder of `tacit up`.")]
DATA = Path("tacit-data")


@app.command()
@options.explained
def verify(
    budget: Annotated[str | None, typer.Argument(help="A budget's id. Default: every budget.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Replay history: hashes, sequence, prices, limits, signatures and sums. Exit code 1 if anything does not hold.

    ```text
    tacit ledger verify
    ```
    """
    client = connect(url, key)
    wanted = [budget] if budget else [b["id"] for b in client.pages("/v1/budgets", 10_000)]
    answers = [client.post(f"/v1/budgets/{id}/verify", {}) for id in wanted]
    if as_json:
        output.print_json({"object": "list", "data": answers})
    for answer in () if as_json else answers:
        verdict = "[green]holds[/green]" if answer["ok"] else "[bold red]does not hold[/bold red]"
        output.console.print(f"{answer['budget']}: {answer['seq']} entries, {verdict}")
        for problem in answer["problems"]:
            place = "" if problem["seq"] is None else f"entry {problem['seq']}: "
            output.console.print(f"  {place}{problem['what']}", markup=False)
    if not all(answer["ok"] for answer in answers):
        raise typer.Exit(1)


@app.command()
@options.explained
def receipt(
    job: str,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the receipts here.")] = None,
    url: options.Url = None,
    key: options.Key = None,
) -> None:
    """The signed receipts of a job's charge and settlement: keep them, they can be checked without the service.

    ```text
    tacit ledger receipt ftjob-... -o receipt.json
    tacit ledger check-receipt receipt.json --public-key HEX
    ```
    """
    text = json.dumps(connect(url, key).get(f"/v1/fine_tuning/jobs/{job}/receipts"), indent=1)
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text + "\n")
        output.console.print(f"Wrote {out}. The key to check it with: tacit ledger keys")


@app.command("check-receipt")
@options.explained
def check_receipt(
    file: Annotated[Path, typer.Argument(help="What `tacit ledger receipt` wrote.")],
    public_key: Annotated[str, typer.Option(help="The service's signing key, as it was when you first asked for it.")],
) -> None:
    """Check receipts offline: the entry hashes to what was signed, and the key signed it. Exit code 1 if not."""
    from pydantic import ValidationError

    from ledger.receipts import BadReceipt, Receipt, check

    try:
        raw = json.loads(file.read_text())
        receipts = [Receipt.model_validate(r) for r in (raw if isinstance(raw, list) else [raw])]
    except (OSError, ValueError) as error:
        kind = "is not a receipt" if isinstance(error, ValidationError | json.JSONDecodeError) else str(error)
        options.fail(f"{file}: {kind}")
    if not receipts:
        options.fail(f"{file} holds no receipt")
    for item in receipts:
        try:
            check(item, public_key)
        except BadReceipt as error:
            options.fail(f"entry {item.seq} of {item.budget}: {error}")
        output.console.print(f"entry {item.seq} of {item.budget}: {item.fields[3]}, holds")


@app.command()
@options.explained
def keys(url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """The public keys that receipts and decisions are signed with."""
    output.show(connect(url, key).get("/v1/ledger/keys"), as_json)


@app.command()
@options.explained
def freeze(
    budget: str, reason: ReasonOption, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """Nothing more is reserved or authorised in this budget."""
    output.show(connect(url, key).post(f"/v1/budgets/{budget}/freeze", {"reason": reason}), as_json)


@app.command()
@options.explained
def lower(
    budget: str,
    epsilon: Annotated[float, typer.Option(help="The new, lower limit.")],
    reason: ReasonOption,
    yes: options.Yes = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Lower a budget's limit for later jobs."""
    options.sure(f"Lower the limit of {budget}? Only the operator raises one again.", yes)
    body = {"epsilon": epsilon, "reason": reason}
    output.show(connect(url, key).post(f"/v1/budgets/{budget}/limit", body), as_json)


@app.command("raise")
@options.explained
def raise_(
    budget: str,
    epsilon: Annotated[str, typer.Option(help="The new, higher limit: the guarantee over all history.")],
    reason: ReasonOption,
    data: Data = DATA,
    yes: options.Yes = False,
    admin_url: AdminUrl = None,
    policy_key: PolicyKey = None,
) -> None:
    """Operator: raise a limit. Everything that was ever released is then covered by the higher epsilon alone."""
    options.sure(
        f"Raise the limit of {budget}? Everything that was ever released is then covered by the higher epsilon alone.",
        yes,
    )
    from ledger import policy

    _decide(data, admin_url, policy_key, lambda c, k: policy.raise_limit(c, k, budget, _decimal(epsilon), reason))


@app.command()
@options.explained
def thaw(
    budget: str, reason: ReasonOption, data: Data = DATA, admin_url: AdminUrl = None, policy_key: PolicyKey = None
) -> None:
    """Operator: end a freeze. Refused while the budget is past its limit."""
    from ledger import policy

    _decide(data, admin_url, policy_key, lambda c, k: policy.thaw(c, k, budget, reason))


@app.command()
@options.explained
def correct(
    budget: str,
    noise_multiplier: Annotated[float, typer.Option(help="Of the mechanism that was run outside the service.")],
    sample_rate: Annotated[float, typer.Option()],
    steps: Annotated[int, typer.Option()],
    reason: ReasonOption,
    data: Data = DATA,
    yes: options.Yes = False,
    admin_url: AdminUrl = None,
    policy_key: PolicyKey = None,
) -> None:
    """Operator: charge what happened outside the service. Freezes the budget when that is past its limit."""
    options.sure(f"Charge {budget}? A charge is never taken back.", yes)
    from dpcore.terms import accounting
    from ledger import policy
    from ledger.budgets import balance

    def charge(connection: Any, key: Any) -> None:
        orders = balance(connection, budget).filter.orders
        more = accounting.cost(accounting.curve(noise_multiplier, sample_rate, orders), steps)
        policy.correct(connection, key, budget, more, reason)

    _decide(data, admin_url, policy_key, charge)


@app.command()
@options.explained
def reprice(
    budget: str,
    reason: ReasonOption,
    data: Data = DATA,
    yes: options.Yes = False,
    admin_url: AdminUrl = None,
    policy_key: PolicyKey = None,
) -> None:
    """Operator: price a budget's whole history again, after a release that corrected the accountant."""
    options.sure(f"Price the whole history of {budget} again?", yes)
    from ledger import policy

    _decide(data, admin_url, policy_key, lambda c, k: policy.reprice(c, k, budget, reason))


@app.command("accept-loss")
@options.explained
def accept_loss(
    budget: str,
    reason: ReasonOption,
    data: Data = DATA,
    yes: options.Yes = False,
    admin_url: AdminUrl = None,
) -> None:
    """Operator: go on without a budget that a restore has lost. Its people then count as new: restore a newer backup
    instead, if there is one.

    ```text
    tacit ledger accept-loss budget-... --reason "opened after the backup of 2 March; its only file was a test"
    ```
    """
    options.sure(f"Go on without {budget} for good? Its people then count as new.", yes)
    from ledger import losses

    _act(data, admin_url, lambda c: losses.accept(c, budget, reason))
    output.console.print("Done; new budgets and private files are taken again once no loss is left.")


@app.command("new-fingerprint-key")
@options.explained
def new_fingerprint_key(
    key_file: Annotated[Path, typer.Argument(help="File with the new TACIT_FINGERPRINT_KEY.", exists=True)],
    reason: ReasonOption,
    data: Data = DATA,
    yes: options.Yes = False,
    admin_url: AdminUrl = None,
) -> None:
    """Operator: the fingerprint key is lost for good; go on with another one.

    What then holds: every promise that was made holds, but records that come again are recognised only where their rows
    are still stored; beside files whose rows are gone, the service asks the steward before it opens another budget.

    Stop the service, run this, and start it with the new key: it reads all stored files again by itself.

    ```text
    tacit ledger new-fingerprint-key secrets/fingerprint_key --reason "lost with the old host"
    ```
    """
    options.sure("Go on with another fingerprint key for good?", yes)
    from domain.files.fingerprints import go_on_with

    try:
        secret = bytes.fromhex(key_file.read_text().strip())
        _act(data, admin_url, lambda c: go_on_with(c, secret, reason))
    except (OSError, ValueError) as error:
        options.fail(f"the key cannot be taken: {error}")
    output.console.print("Done; start the service with this key.")


def _decide(data: Path, admin_url: str | None, policy_key: Path | None, act: Callable[[Any, Any], None]) -> None:
    """One signed decision in one transaction of the administrator's."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cli.embedded import stack

    admin_url = admin_url or stack.admin_url(data)
    try:
        seed = policy_key.read_text().strip() if policy_key else stack.policy_key(data)
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
    except (OSError, ValueError) as error:
        raise StackError(f"the policy key cannot be read: {error}") from None
    _act(data, admin_url, lambda connection: act(connection, key))
    output.console.print("Done; it is an entry in the budget's ledger.")


def _act(data: Path, admin_url: str | None, act: Callable[[Any], None]) -> None:
    """One transaction of the administrator's."""
    import sqlalchemy as sa

    from cli.embedded import stack
    from ledger.errors import LedgerError

    engine = sa.create_engine(admin_url or stack.admin_url(data), poolclass=sa.NullPool)
    try:
        with engine.begin() as connection:
            act(connection)
    except LedgerError as error:
        raise ApiError(f"the database refused: {error}") from None
    except sa.exc.NoResultFound:
        raise ApiError("no such budget") from None
    except sa.exc.DBAPIError as error:
        raise ApiError(f"the database refused: {str(error.orig).splitlines()[0]}") from None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        raise ApiError(f"{text!r} is not a number", param="epsilon") from None
