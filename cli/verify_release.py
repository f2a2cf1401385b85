"""`tacit verify-release`: whether a statement and what it rests on are as they were signed. No service, no settings."""

from pathlib import Path
from typing import Annotated

import typer

from cli import options, output


@options.explained
def verify_release(
    evidence: Annotated[Path, typer.Argument(help="A folder of `tacit jobs evidence`, or the ZIP.", exists=True)],
    key: Annotated[
        Path | None,
        typer.Option(
            help="File with the service's public keys, as you had them from elsewhere: in hexadecimal, or what `tacit "
            "ledger keys --json` printed. Without it the key in the evidence is used, which shows integrity alone."
        ),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="The adapter's ZIP, where it does not lie in the folder.", exists=True)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check evidence offline: every file is as it was signed, the adapter is the one that was released, the receipts
    and the ledger's entries hang together, and prices, epsilons and odds come out the same. Exit code 1 if anything
    does not hold.

    ```text
    tacit verify-release evidence
    tacit verify-release evidence --key keys.json --adapter adapter.zip
    ```
    """
    from domain.statements import checking, places

    try:
        keys = None if key is None else checking.read_keys(key.read_text(encoding="utf-8", errors="replace"))
        verdict = checking.check(places.open_evidence(evidence), keys, adapter)
    except places.BadEvidence as error:
        verdict = checking.EvidenceVerdict(False, f"Does not hold: {error}.")
    if as_json:
        output.print_json({"holds": verdict.holds, "sentence": verdict.sentence, "notes": verdict.notes})
    else:
        output.console.print(verdict.sentence, style="green" if verdict.holds else "bold red", markup=False)
        for note in verdict.notes:
            output.console.print(note, markup=False)
    if not verdict.holds:
        raise typer.Exit(1)
