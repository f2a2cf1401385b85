"""`tacit privacy-audit`: audits of this installation's own training, which could fail; and golden values of its
accountants."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options, output

if TYPE_CHECKING:
    from dpcore.audit.golden import GoldenResult

COLUMNS = ["audit", "claim", "direct", "gaussian", "fitted", "canaries", "seconds", "verdict"]
GOLDEN = ["accountant", "value", "found", "source", "holds"]
LEAST_CANARIES = 16
USUAL = ("canaries", "lora", "classification", "record", None)
"""--how, --method, --task, --unit and --clipping, where they are not named."""


@options.explained
def privacy_audit(
    how: Annotated[
        str,
        typer.Option(
            help="canaries: in one run, read from its iterates. membership: by the released weights alone. round: of a "
            "federated job. differences: for noise drawn twice. steps: for draws and divisors."
        ),
    ] = USUAL[0],
    method: Annotated[str, typer.Option(help="What is trained, such as lora.")] = USUAL[1],
    task: Annotated[str, typer.Option(help="The kind of task.")] = USUAL[2],
    unit: Annotated[str, typer.Option(help="Who is protected: record or user.")] = USUAL[3],
    clipping: Annotated[
        str | None, typer.Option(help="automatic, flat, per-layer or adaptive. Default: the method's own.")
    ] = None,
    canaries: Annotated[
        int, typer.Option(min=LEAST_CANARIES, help="Of each audit: with more of them bounds come closer to the truth.")
    ] = 400,
    epsilon: Annotated[float, typer.Option(min=0.05, max=50, help="The price of the audited run.")] = 4.0,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999999, help="With which all bounds of this command hold together.")
    ] = 0.99,
    installation: Annotated[
        bool, typer.Option("--installation", help="Every method, task and unit that this installation has.")
    ] = False,
    conformance: Annotated[
        bool, typer.Option("--conformance", help="Golden values of the accountants, and one short audit.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", dir_okay=False, metavar="FILE", help="Keep findings here; what it holds is not measured again."
        ),
    ] = None,
) -> None:
    """Operator, auditor: measure what training leaks, and hold it against what it claims.

    Made-up canaries go into a file by coins, the installation's own loop trains on it, and what it releases is asked
    who was in. From the right guesses follow bounds on epsilon from below: `direct` supposes nothing, `gaussian` that
    steps are noised sums of the whole file, `fitted` that scores are normal too. A bound above the claim is a fault,
    and the exit code is 1. A bound below it proves nothing: docs/audits.md says what is shown and what is not. No
    private row is read, and no service is asked.

    ```text
    tacit privacy-audit                                                     # lora, records, a minute
    tacit privacy-audit --method full --task text --clipping per-layer --canaries 600
    tacit privacy-audit --unit user --epsilon 2 --confidence 0.999
    tacit privacy-audit --how membership                                    # by the released weights alone
    tacit privacy-audit --how steps --canaries 500                          # draws and divisors
    tacit privacy-audit --installation --json audit.jsonl                   # all there is; goes on where it stopped
    tacit privacy-audit --conformance                                       # golden values, and a short audit
    ```
    """
    from cli.auditing import Findings, run

    if installation and conformance:
        options.fail("--installation and --conformance are two commands: name one of them")
    if (installation or conformance) and (how, method, task, unit, clipping) != USUAL:
        options.fail(
            "--installation and --conformance choose what is audited: leave --how, --method, --task, --unit out"
        )
    kept = Findings.read(json_file)
    golden = _conform(kept) if conformance else []
    plans = _plans(how, method, task, unit, clipping, epsilon, installation=installation, conformance=conformance)
    found, left_out = run(plans, canaries, confidence, kept, alone=not installation)
    output.show_list([_row(one) for one in found], COLUMNS, False)
    for name, reason in left_out.items():
        options.note(f"left out: {name}: {reason}")
    wrong = [one for one in golden if not one.holds]
    above = [one for one in found if one["above"]]
    output.console.print(_verdict(len(found), len(above), confidence))
    if wrong:
        output.console.print(f"{len(wrong)} of {len(golden)} golden values do not hold.")
    if wrong or above:
        raise typer.Exit(1)


def _plans(
    how: str,
    method: str,
    task: str,
    unit: str,
    clipping: str | None,
    epsilon: float,
    *,
    installation: bool,
    conformance: bool,
) -> list[Any]:
    from typing import get_args

    from dpcore.audit import installation as all_there_is
    from dpcore.audit.finding import AUDITS
    from dpcore.audit.subject import Subject
    from dpcore.terms.methods import method_names
    from dpcore.terms.program import Clipping

    if conformance:
        return [all_there_is.short()]
    if installation:
        return list(all_there_is.everything(epsilon))
    for name, value, known in (
        ("--how", how, AUDITS),
        ("--method", method, method_names()),
        ("--task", task, all_there_is.tasks()),
        ("--unit", unit, all_there_is.UNITS),
        ("--clipping", clipping, (None, *get_args(Clipping))),
    ):
        if value not in known:
            options.fail(f"{name} {value}: there are {', '.join(one for one in known if one)}")
    subject = Subject(method=method, task=task, unit=unit, clipping=clipping, epsilon=epsilon)  # type: ignore[arg-type]
    return [all_there_is.planned(subject, how)]  # type: ignore[arg-type]


def _conform(kept: Any) -> "list[GoldenResult]":
    """Golden values, computed here."""
    from dpcore.audit.golden import check

    found = list(check())
    kept.add_golden(found)
    rows = [
        {"accountant": r.accountant, "value": r.what, "found": r.found, "source": r.source, "holds": r.holds}
        for r in found
    ]
    output.show_list(rows, GOLDEN, False)
    return found


def _row(found: dict[str, Any]) -> dict[str, Any]:
    """As the table has it; a bound that does not apply is left empty."""
    verdict = "above the claim" if found["above"] else "below it"
    return found | {"audit": f"{found['audit']}/{found['subject']}", "verdict": verdict}


def _verdict(count: int, above: int, confidence: float) -> str:
    if above:
        return f"{above} of {count} audits found a bound above its claim: a fault (confidence {confidence:g})."
    return f"No bound of {count} audits lies above its claim. That is no proof: it shows that these attacks fail."
