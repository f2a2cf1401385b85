"""new_task.py FOLDER: walks the kinds `title` and `claim` from an upload's form to an answer, without a database, in a
process whose tree has them. Prints what was seen as JSON."""

import io
import json
import sys
from pathlib import Path
from typing import Any

from fastapi.exceptions import RequestValidationError
from typer.testing import CliRunner

import dpcore
from api.files.schemas import NewFile, parse_form
from api.files.upload import Form
from cli.main import app
from domain.ingest.check import CheckRequest, check
from domain.models.allow_list import describe
from domain.storage.rows import parse_rows
from dpcore.export import About, PrivacyClaim, write_card
from dpcore.methods import get_trainer
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import make_task
from dpcore.terms.kind import LABEL
from dpcore.terms.tasks import KINDS, get_kind
from tests.domain.test_planning import CHATTER, plan
from tests.dpcore import zoo
from tests.dpcore.test_train import Host, make_program
from tests.sample_rows import row_of

PRIVACY = PrivacyClaim(2.5, 1e-5, "record", "add_or_remove_one", "Poisson-subsampled Gaussian", "The promise.", 400)


def tacit(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})


def form(**columns: str) -> NewFile:
    sent = Form(io.BytesIO(), 0)
    sent.fields, sent.filename = [("purpose", "evals"), *((f"columns[{n}]", c) for n, c in columns.items())], "rows.csv"
    return parse_form(sent)


def walk(name: str, stand: str, architecture: str, folder: Path) -> dict[str, Any]:
    kind, labels = get_kind(name), zoo.LABELS if get_kind(name).labelled else ()
    own = {field: f"own {field}" for field in kind.fields}
    wanted = form(**own)
    folder.mkdir()
    rows, source = folder / "rows", folder / "sent.jsonl"
    said = [row_of(name, f"w{i}", zoo.LABELS[i % 3]) for i in range(30)]
    source.write_text("".join(json.dumps({own[field]: row[field] for field in own}) + "\n" for row in said))
    asked = {"task": wanted.kind, "columns": wanted.names, "labels": list(labels) or None}
    made = check(CheckRequest(source=source, target=rows, format="jsonl", declared_size=None, key="33" * 32, **asked))
    kept = parse_rows(rows)
    base = zoo.save(architecture, stand, folder / "base")
    tokenizer = load_tokenizer(base)
    task = make_task(name, tokenizer, labels=labels, max_length=16)
    model = get_trainer("lora").attach(build_model(name, base, labels, seed=0), {}, task=name, seed=0)
    host, records = Host(), task.encode(kept.columns, kept.labels or [])
    host.run(model, task, records, make_program(steps=2))
    about = About("tiny", describe("tiny", base).revision, "lora", name, labels, 16)
    export = folder / "export"
    get_trainer("lora").export(model, export, about, tokenizer=tokenizer)
    write_card(export, base, PRIVACY)
    named = [word for field, theirs in own.items() if field != LABEL for word in (f"--{field}", theirs)]
    tried = tacit("try", export, source, "--base", base, "--max-new-tokens", 2, *named)
    return {
        "task": wanted.kind,
        "names": wanted.names == own,
        "problems": made.problems,
        "kept": [kept.columns == {field: [row[field] for row in said] for field in kind.texts}, kept.labels],
        "records": len(records),
        "steps": len(host.saved),
        "planned": plan(CHATTER, name).memory > 0,
        "card": kind.example.replace("{max_length}", "16") in (export / "README.md").read_text(),
        "answers": [tried.exit_code, len(tried.stdout.splitlines())],
        "help": all(f"--{field}" in tacit("files", "upload", "--help").stdout for field in own),
    }


def refusal(**columns: str) -> str:
    try:
        form(**columns)
    except RequestValidationError as error:
        return str(error.errors()[0]["msg"])
    return ""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    seen = {
        "tree": str(Path(dpcore.__file__).parent),
        "kinds": list(KINDS),
        "fitting": CHATTER.tasks,
        "accepted": NewFile.model_json_schema()["properties"]["task"]["anyOf"][0]["enum"],
        "refused": refusal(evidence="e", prompt="p"),
        "title": walk("title", "completion", "gpt2", folder / "title"),
        "claim": walk("claim", "classification", "bert", folder / "claim"),
    }
    sys.stdout.write(json.dumps(seen) + "\n")
