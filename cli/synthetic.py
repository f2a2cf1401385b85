"""Options of a job that samples text from what it releases."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import options

SyntheticRecords = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Sample so many records from the released language model: a file beside the adapter, at no charge.",
    ),
]
SyntheticPromptsFile = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="What they begin with, all of it public: .txt, a prompt a line, or .jsonl of prompt (or messages) and "
        "weight. Only a job on texts needs none.",
    ),
]
SyntheticSetting = Annotated[
    list[str] | None,
    typer.Option(help="max_new_tokens=64, temperature=1, top_p=1 (draw among the likeliest), seed=0; repeatable."),
]


def asked(records: int | None, prompts: Path | None, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The request's `synthetic`; None where no records are asked for."""
    if records is None:
        if prompts is not None or settings:
            options.fail("say how many records are to be sampled: --synthetic 1000")
        return None
    named = {} if prompts is None else {"prompts": _read(prompts)}
    return {"records": records, **named, **settings}


def _read(file: Path) -> list[Any]:
    """Prompts, blank lines skipped."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        return (
            [json.loads(line) for line in lines] if file.suffix == ".jsonl" else [line.rstrip("\r") for line in lines]
        )
    except ValueError:
        options.fail(f"{file} is not a file of prompts: .txt in UTF-8 with a prompt a line, or .jsonl")
