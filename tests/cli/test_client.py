"""The client commands against a small server that answers what it is told."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli.main import app

Answer = tuple[int, bytes, dict[str, str]]


class Service:
    """Answers by method and path, and remembers what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                service.asked.append((f"{self.command} {self.path}", dict(self.headers), body))
                waiting = service.answers[f"{self.command} {self.path.partition('?')[0]}"]
                status, content, headers = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                self.send_response(status)
                for name, value in ({"content-length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def says(self, call: str, body: Any, status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.setdefault(call, []).append((status, content, headers))


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TACIT_URL", raising=False)
    monkeypatch.delenv("TACIT_API_KEY", raising=False)
    made = Service()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def tacit(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_models_that_cannot_be_used_and_methods_that_failed_are_shown_with_their_reasons(service: Service) -> None:
    refused = {"method": "side", "task": "completion", "because": "no hidden states", "tried_at": 0}
    good = {
        "id": "good",
        "available": True,
        "methods": ["lora"],
        "refused": [refused],
        "profile": [],
        "source": "folder",
    }
    broken = {
        "id": "bad",
        "available": False,
        "unavailable_because": "config.json is no valid JSON",
        "source": "folder",
    }
    broken |= {"methods": [], "refused": [], "profile": []}
    service.says("GET /v1/models", {"object": "list", "data": [good, broken]})
    result = tacit("models", "--url", service.url, "--key", "k")
    assert result.exit_code == 0, result.stderr
    listed, _, rest = result.stdout.partition("These cannot be used")
    assert ("good" in listed, "bad" in listed) == (True, False)
    for part in ("bad", "config.json is no valid JSON", "side", "no hidden states"):
        assert part in rest


def test_trying_the_models_shows_each_method_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [{"model": "m", "method": method, "task": "classification"} for method in ("lora", "side")]
    said = [wanted, {"trains": True, "because": None}, {"trains": False, "because": "no hidden states"}]
    asked: list[list[str]] = []
    popen = subprocess.Popen

    def worker(command: list[str], **options: Any) -> "subprocess.Popen[str]":
        asked.append(command)
        return popen([sys.executable, "-c", "\n".join(f"print({json.dumps(line)!r})" for line in said)], **options)

    monkeypatch.setenv("TACIT_DATABASE_URL", "of a worker")
    monkeypatch.setattr("subprocess.Popen", worker)
    result = tacit("models", "check", "m", "--json")
    assert result.exit_code == 0, result.stderr
    assert asked[0][-5:] == ["-m", "worker", "check", "--model", "m"]
    assert json.loads(result.stdout)["data"] == [wanted[0] | said[1], wanted[1] | said[2]]


def test_a_refusal_shows_message_field_and_what_would_fit(service: Service) -> None:
    refusal = {"detail": "no room", "largest_epsilon": 0.5, "errors": []}
    refusal["error"] = {"message": "no room", "param": "privacy.epsilon", "code": "privacy_budget_exceeded"}
    service.says("POST /v1/fine_tuning/jobs", refusal, status=403)
    result = tacit("jobs", "create", "--file", "file-1", "--epsilon", "3", "--url", service.url, "--key", "k")
    assert result.exit_code == 1
    for part in ("no room", "field: privacy.epsilon", "code: privacy_budget_exceeded", "largest_epsilon: 0.5"):
        assert part in result.stderr
    (_, headers, body) = service.asked[0]
    assert headers["Authorization"] == "Bearer k"
    assert json.loads(body)["privacy"] == {"epsilon": 3.0}


def test_numbers_of_training_go_to_the_method(service: Service) -> None:
    service.says("POST /v1/fine_tuning/jobs/estimate", {"fits": True})
    numbers = ["--steps", "7", "--hyperparameter", "clipping=adaptive", "--hyperparameter", "clip_norm=0.5"]
    given = ["--method", "lora", "--option", "r=4", *numbers]
    assert tacit("jobs", "estimate", "--file", "f", *given, "--url", service.url, "--key", "k").exit_code == 0
    asked = {"steps": 7, "clipping": "adaptive", "clip_norm": 0.5}
    assert json.loads(service.asked[0][2])["method"] == {"type": "lora", "lora": {"r": 4, "hyperparameters": asked}}


def test_a_job_may_be_asked_for_by_its_share(service: Service) -> None:
    service.says("POST /v1/fine_tuning/jobs/estimate", {"fits": True})
    given = ["--share", "0.25", "--measure", "2%", "--method", "bitfit", "--option", "full_steps=20"]
    assert tacit("jobs", "estimate", "--file", "f", *given, "--url", service.url, "--key", "k").exit_code == 0
    asked = json.loads(service.asked[0][2])
    assert (asked["privacy"], asked["measure"]) == ({"share": 0.25}, {"share": 0.02})
    assert asked["method"] == {"type": "bitfit", "bitfit": {"full_steps": 20}}


def test_invitations_are_sent_answered_and_withdrawn(service: Service) -> None:
    path = "/v1/invitations"
    shown = {"id": "inv-1", "status": "open", "guest": "tenant_b", "expires_at": 0}
    service.says(f"POST {path}", shown, status=201)
    service.says(f"GET {path}", {"object": "list", "data": [shown], "has_more": False})
    for call in ("accept", "withdraw"):
        service.says(f"POST {path}/inv-1/{call}", shown)
    service.says(f"POST {path}/inv-1/estimate", {"fits": True})
    service.says(f"GET {path}/inv-1", shown)
    offer = ["inv-1", "--file", "file-2", "--share", "0.25"]
    for arguments in (
        ["create", "tenant_b", "--file", "file-1", "--option", "rounds=5", "--hyperparameter", "batch_size=8"],
        ["create", "tenant_b", "--file", "file-1", "--note", "please", "--days", "3", "--seed", "7"],
        ["list"],
        ["show", "inv-1"],
        ["estimate", *offer],
        ["accept", *offer, "--queue-days", "2"],
        ["withdraw", "inv-1", "--yes"],
    ):
        done = tacit("invitations", *arguments, "--url", service.url, "--key", "k")
        assert done.exit_code == 0, done.output
        assert "tenant_b" in done.stdout or "fits" in done.stdout
    bodies = [json.loads(body) if body else None for _, _, body in service.asked]
    basis = {"guest": "tenant_b", "model": "minilm-l6", "training_file": "file-1"}
    block = {"rounds": 5, "hyperparameters": {"batch_size": 8}}
    assert bodies[0] == basis | {"method": {"type": "federated-lora", "federated-lora": block}}
    rest = {"note": "please", "days": 3, "seed": 7}
    assert bodies[1] == basis | {"method": {"type": "federated-lora"}} | rest
    assert bodies[4] == {"training_file": "file-2", "privacy": {"share": 0.25}}
    assert bodies[5] == bodies[4] | {"queue_days": 2}
    for wrong in ([], ["--share", "0.5", "--epsilon", "1"]):
        done = tacit("invitations", "accept", "inv-1", "--file", "f", *wrong, "--url", service.url, "--key", "k")
        assert (done.exit_code, "--share or --epsilon" in done.stderr) == (1, True)


def test_a_federated_job_is_asked_for_and_shows_its_silos_and_rounds(service: Service) -> None:
    silo = {"own": False, "tenant": "tenant_b", "job": None, "state": "working", "declared_size": 400}
    silos = [{"name": f"silo-{n}", "rounds_sent": 3, "rounds_missed": n} | silo for n in (1, 2)]
    phase = {"name": "train", "noise_multiplier": 1, "sample_rate": 0.1, "steps_authorised": 1, "steps": 9}
    rounds = {"total": 50, "done": 3, "open": 3, "message_bytes": 1000, "model_ratio": 305.2}
    job = {"id": "ftjob-1", "privacy": {"phases": [phase]}, "silos": silos, "rounds": rounds}
    service.says("POST /v1/fine_tuning/jobs", job, status=201)
    service.says("GET /v1/fine_tuning/jobs/ftjob-1", job)
    given = ["--file", "f", "--method", "federated-lora", "--option", 'silos=["inv-1", "inv-2"]', "--share", "0.2"]
    assert tacit("jobs", "create", *given, "--url", service.url, "--key", "k").exit_code == 0
    asked = json.loads(service.asked[0][2])["method"]
    assert asked == {"type": "federated-lora", "federated-lora": {"silos": ["inv-1", "inv-2"]}}
    shown = tacit("jobs", "show", "ftjob-1", "--url", service.url, "--key", "k").stdout
    fields, _, table = shown.partition("Silos;")
    assert "rounds.done" in fields
    for part in ("silo-1", "silo-2", "tenant_b", "working", "400"):
        assert part in table


def test_the_phases_of_a_job_are_a_table_of_their_own(service: Service) -> None:
    phase = {"trains": "full", "mechanism": "poisson_gaussian", "noise_multiplier": 1.5, "sample_rate": 0.01}
    phases = [
        phase | {"name": "everything", "steps": 20, "steps_authorised": 20, "epsilon": 1.25, "share": 0.125},
        phase | {"name": "biases", "steps": 30, "steps_authorised": 7, "epsilon": None, "share": None},
    ]
    job = {"id": "j", "status": "running", "privacy": {"epsilon": 2.0, "share": 0.25, "phases": phases}}
    service.says("GET /v1/fine_tuning/jobs/j", job)
    command = ["jobs", "show", "j", "--url", service.url, "--key", "k"]
    said = tacit(*command).stdout
    above, _, table = said.partition("Phases, in order")
    assert "everything" not in above
    assert "privacy.share" in above
    head, first, second = table.splitlines()[1:4]
    assert head.split() == ["phase", "trains", "mechanism", "sigma", "rate", "steps", "share", "epsilon"]
    assert first.split() == ["everything", "full", "poisson_gaussian", "1.5", "0.01", "20", "of", "20", "0.125", "1.25"]
    assert second.split() == ["biases", "full", "poisson_gaussian", "1.5", "0.01", "7", "of", "30"]
    assert json.loads(tacit(*command, "--json").stdout) == job


def test_jobs_of_a_file_stand_side_by_side_the_best_first(service: Service) -> None:
    def job(id: str, file: str, value: float | None) -> dict[str, Any]:
        measured = {
            "metric": "accuracy",
            "value": value,
            "standard_error": 0.01,
            "baseline": 0.5,
            "file": "file-public",
        }
        return {
            "id": id,
            "training_file": file,
            "model": "tiny",
            "method": {"type": "lora", "lora": {"hyperparameters": {"steps": 7}}},
            "privacy": {"share": 0.25, "epsilon": 2.5},
            "quality": None if value is None else measured,
        }

    listed = [job("a", "file-1", 0.7), job("b", "file-2", 0.99), job("c", "file-1", 0.8), job("d", "file-1", None)]
    listed.append(job("e", "file-4", 0.9))
    listed[-1]["quality"] |= {"file": None, "baseline": None, "source": "private"}
    service.says("GET /v1/fine_tuning/jobs", {"data": listed, "has_more": False})
    where = ("--url", service.url, "--key", "k")
    found = json.loads(tacit("jobs", "compare", "file-1", *where, "--json").stdout)["data"]
    assert [(row["id"], row["accuracy"], row["share"], row["numbers"]) for row in found] == [
        ("c", 0.8, 0.25, {"steps": 7}),
        ("a", 0.7, 0.25, {"steps": 7}),
    ]
    (row,) = json.loads(tacit("jobs", "compare", "file-4", *where, "--json").stdout)["data"]
    assert (row["accuracy"], row["evaluated on"]) == (0.9, "held-out units")
    assert "No job of this file has a quality yet" in tacit("jobs", "compare", "file-3", *where).stdout


def test_an_upload_is_a_form_with_the_names_of_the_service(service: Service, tmp_path: Path) -> None:
    service.says("POST /v1/files", {"id": "file-1"})
    rows = tmp_path / "rows.tsv"
    rows.write_text("sentence\tclass\n")
    options = ["--epsilon", "8", "--delta", "1e-6", "--text", "sentence", "--declared-size", "count", "--labels", "a,b"]
    assert tacit("files", "upload", str(rows), *options, "--url", service.url, "--key", "k").exit_code == 0
    body = service.asked[0][2].decode()
    for name in ("privacy_budget[epsilon]", "privacy_budget[delta]", "columns[text]", "declared_size", "labels"):
        assert f'name="{name}"' in body
    assert 'filename="rows.tsv"' in body


REPORT = {
    "read": 2000,
    "kept": 1990,
    "repeated": 10,
    "conflicts": {"texts": 3, "records": 7},
    "dropped_by_user_bound": 0,
}
REPORT |= {"max_length": 128, "longer_than_max_length": 4, "classes": {"[a]": {"read": 1200, "kept": 1190}}}
REPORT |= {"length": {"min": 1, "median": 12, "p90": 30, "p99": 99, "max": 321}, "unused_columns": ["ward", "[red]x"]}
REPORT |= {
    "questions": [
        {"code": "odd_class", "message": "the class '[a]' is odd", "label": "[a]", "column": None, "detail": {}}
    ]
}


def test_an_upload_says_what_became_of_the_records(service: Service, tmp_path: Path) -> None:
    service.says("POST /v1/files", {"id": "file-1", "report": REPORT})
    (rows := tmp_path / "rows.csv").write_text("text,label\n")
    command = ["files", "upload", str(rows), "--epsilon", "8", "--url", service.url, "--key", "k"]
    said = tacit(*command).stdout
    for words in (
        "file-1",
        "1,990 of 2,000 records kept",
        "10 the same as an earlier one",
        "7 with one of 3 texts that have two or more labels",
        "4 longer than 128 tokens",
        "not used: ward, [red]x",
        "odd_class: the class '[a]' is odd",
    ):
        assert words in said, said
    assert "321" not in said
    assert json.loads(tacit(*command, "--json").stdout)["report"] == REPORT


def test_a_report_is_shown_whole(service: Service) -> None:
    service.says("GET /v1/files/file-1/report", REPORT)
    command = ["files", "report", "file-1", "--url", service.url, "--key", "k"]
    said = tacit(*command).stdout
    for words in ("1,990 of 2,000", "min 1, median 12, p90 30, p99 99, max 321", "[a]", "1,190", "odd_class"):
        assert words in said, said
    assert json.loads(tacit(*command, "--json").stdout) == REPORT


def test_pages_are_followed_to_the_end(service: Service) -> None:
    service.says("GET /v1/budgets", {"data": [{"id": "b1"}], "has_more": True})
    service.says("GET /v1/budgets", {"data": [{"id": "b2"}], "has_more": False})
    result = tacit("budgets", "list", "--json", "--url", service.url, "--key", "k")
    assert [budget["id"] for budget in json.loads(result.stdout)["data"]] == ["b1", "b2"]
    assert "after=b1" in service.asked[1][0]


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("adapter_config.json", "{}")
    return buffer.getvalue()


ARCHIVE = archive()


# Named, because the archive holds the time: the sha256 in a name would make it another test in every process.
@pytest.mark.parametrize(
    ("promised", "code"),
    [(None, 1), ("0" * 64, 1), (hashlib.sha256(ARCHIVE).hexdigest(), 0)],
    ids=["none", "another", "right"],
)
def test_an_adapter_appears_only_when_its_sha256_is_right(
    service: Service, tmp_path: Path, promised: str | None, code: int
) -> None:
    headers = {} if promised is None else {"x-content-sha256": promised}
    service.says("GET /v1/fine_tuning/jobs/j/adapter", ARCHIVE, **headers)
    target = tmp_path / "adapter"
    assert tacit("adapters", "download", "j", "-o", str(target), "--url", service.url, "--key", "k").exit_code == code
    assert target.exists() == (code == 0)


def test_all_results_of_a_job_are_taken_home_each_by_its_sha256(service: Service, tmp_path: Path) -> None:
    jobs = {"good": ["file-1", "file-2"], "bad": ["file-1", "file-3"]}
    for id, files in jobs.items():
        service.says(f"GET /v1/fine_tuning/jobs/{id}", {"id": id, "status": "succeeded", "result_files": files})
    right = {"x-content-sha256": hashlib.sha256(ARCHIVE).hexdigest()}
    sent = {"file-1": ("adapter.zip", ARCHIVE), "file-2": ("../synthetic.jsonl", ARCHIVE)}
    for id, (name, data) in (sent | {"file-3": ("synthetic.jsonl", ARCHIVE + b"x")}).items():
        service.says(f"GET /v1/files/{id}", {"id": id, "filename": name})
        service.says(f"GET /v1/files/{id}/content", data, **right)
    for job, code in (("good", 0), ("bad", 1)):
        command = ["jobs", "results", job, "-o", str(tmp_path / job), "--url", service.url, "--key", "k"]
        assert tacit(*command).exit_code == code
    assert sorted(path.name for path in (tmp_path / "good").iterdir()) == ["adapter.zip", "synthetic.jsonl"]
    assert [path.name for path in (tmp_path / "bad").iterdir()] == ["adapter.zip"]


def test_sampled_text_is_asked_for_with_prompts_of_a_file(service: Service, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("the old apple\n\niron: \r\n")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a\\nb", "weight": 2}\n"zinc"\n')
    given = ["jobs", "estimate", "--file", "f", "--url", service.url, "--key", "k"]
    for suffix in ("txt", "jsonl"):
        service.says("POST /v1/fine_tuning/jobs/estimate", {"fits": True})
        prompts = ["--synthetic-prompts", str(tmp_path / f"prompts.{suffix}")]
        assert tacit(*given, "--synthetic", "10", *prompts, "--synthetic-option", "top_p=0.9").exit_code == 0
    asked = [json.loads(body)["synthetic"] for _, _, body in service.asked]
    assert asked[0] == {"records": 10, "prompts": ["the old apple", "iron: "], "top_p": 0.9}
    assert asked[1]["prompts"] == [{"prompt": "a\nb", "weight": 2}, "zinc"]
    refused = tacit(*given, *prompts)
    assert (refused.exit_code, "--synthetic 1000" in refused.stderr) == (1, True)


def test_the_local_admin_key_goes_to_this_machine_only(service: Service, tmp_path: Path) -> None:
    for name, text in (("run/address", service.url), ("secrets/admin-key", "local-key")):
        (tmp_path / "tacit-data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tacit-data" / name).write_text(text)
    service.says("GET /v1/models", {"data": []})
    assert tacit("models").exit_code == 0
    assert service.asked[0][1]["Authorization"] == "Bearer local-key"
    result = tacit("models", "--url", "https://tacit.example")
    assert result.exit_code == 1
    assert "No API key" in result.stderr


def test_nobody_there_names_the_fix(service: Service) -> None:
    result = tacit("models", "--url", "http://127.0.0.1:9", "--key", "k")
    assert result.exit_code == 1
    assert "tacit up" in result.stderr


def test_it_says_which_version_it_is() -> None:
    assert tacit("--version").stdout.startswith("tacit 0.")


@pytest.mark.parametrize(
    ("command", "call"),
    [
        (("files", "delete", "file-1"), "DELETE /v1/files/file-1"),
        (("keys", "revoke", "key_1"), "DELETE /v1/keys/key_1"),
        (("grants", "revoke", "budget-1", "grant-1"), "DELETE /v1/budgets/budget-1/grants/grant-1"),
        (("jobs", "cancel", "ftjob-1"), "POST /v1/fine_tuning/jobs/ftjob-1/cancel"),
        (("invitations", "withdraw", "inv-1"), "POST /v1/invitations/inv-1/withdraw"),
        (("keys", "rotate", "key_1", "--overlap-hours", "0"), "POST /v1/keys/key_1/rotate"),
        (("ledger", "lower", "b-1", "--epsilon", "1", "--reason", "r"), "POST /v1/budgets/b-1/limit"),
    ],
)
def test_what_cannot_be_undone_is_asked_for_first(
    service: Service, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], call: str
) -> None:
    service.says(call, {"deleted": True})
    where = ("--url", service.url, "--key", "k")
    alone = tacit(*command, *where)
    assert (alone.exit_code, service.asked) == (1, [])
    assert "--yes" in alone.stderr
    monkeypatch.setattr("cli.options._somebody", lambda: True)
    no = CliRunner().invoke(app, [*command, *where], input="n\n")
    assert (no.exit_code, service.asked) == (1, [])
    for more, said in (((), "y\n"), (("--yes",), "")):
        assert CliRunner().invoke(app, [*command, *where, *more], input=said).exit_code == 0
    assert [asked[0] for asked in service.asked] == [call, call]


def test_a_job_that_was_submitted_a_moment_ago_is_said_to_be_that_one(service: Service) -> None:
    service.says("POST /v1/fine_tuning/jobs", {"id": "ftjob-1"}, **{"idempotent-replayed": "true"})
    service.says("POST /v1/fine_tuning/jobs", {"id": "ftjob-2"})
    command = ("jobs", "create", "--file", "file-1", "--url", service.url, "--key", "k", "--json")
    again, new = tacit(*command), tacit(*command)
    assert json.loads(again.stdout)["id"] == "ftjob-1"
    assert "--allow-duplicate" in again.stderr
    assert (json.loads(new.stdout)["id"], new.stderr) == ("ftjob-2", "")


def test_an_answer_that_is_lost_says_that_it_may_be_asked_for_again(service: Service) -> None:
    service.says("POST /v1/fine_tuning/jobs", b"cut off", **{"content-length": "100"})
    lost = tacit("jobs", "create", "--file", "file-1", "--url", service.url, "--key", "k")
    assert lost.exit_code == 1
    assert "is not submitted twice" in lost.stderr


SECRET = "tacit_0000made0up0"


def test_a_key_with_a_line_end_is_that_key(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.says("GET /v1/models", {"data": []})
    monkeypatch.setenv("TACIT_API_KEY", f"{SECRET}\r\n")
    assert tacit("models", "--url", service.url).exit_code == 0
    assert service.asked[0][1]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("around", ["\u201c{}\u201d", "{}\nx", "{} x", "{}\0", "\u00e4{}"])
@pytest.mark.parametrize("upload", [False, True])
def test_a_key_that_is_none_is_refused_and_never_shown(
    service: Service, tmp_path: Path, around: str, upload: bool
) -> None:
    (rows := tmp_path / "rows.csv").write_text("text,label\n")
    command = ("files", "upload", str(rows), "--public") if upload else ("models",)
    refused = tacit(*command, "--url", service.url, "--key", around.format(SECRET))
    assert (refused.exit_code, service.asked) == (1, [])
    assert "fix: copy it whole" in refused.stderr
    assert SECRET not in refused.output


@pytest.mark.parametrize(
    ("proxy", "words"), [("socks5://127.0.0.1:9", "httpx[socks]"), ("foo://127.0.0.1:9", "NO_PROXY")]
)
def test_a_proxy_that_cannot_be_used_is_named(
    service: Service, monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)
    refused = tacit("models", "--url", "http://tacit.example", "--key", SECRET)
    assert refused.exit_code == 1
    for word in ("Error: The environment names a", "fix: ", words):
        assert word in refused.stderr
    assert SECRET not in refused.output


@pytest.mark.parametrize(
    "url", ["tacit.example:8000", "ftp://x", "http://[::1", "http://x:99999999", "http://\u201cx\u201d", "http://", ""]
)
def test_an_address_that_is_none_says_what_one_is(service: Service, url: str) -> None:
    refused = tacit("models", "--url", url, "--key", SECRET)
    assert refused.exit_code == 1
    assert "fix: http://HOST:PORT or https://HOST" in refused.stderr


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/v1"])
def test_an_address_may_end_as_that_of_other_clients(service: Service, end: str) -> None:
    service.says("GET /v1/models", {"data": []})
    assert tacit("models", "--url", f"{service.url}{end}\n", "--key", SECRET).exit_code == 0
    assert service.asked[0][0] == "GET /v1/models"


def test_what_is_no_plain_file_is_not_read(service: Service, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "rows.csv")
    for file in (pipe, Path("/dev/null")):
        refused = tacit("files", "upload", str(file), "--public", "--url", service.url, "--key", SECRET)
        assert (refused.exit_code, service.asked) == (1, [])
        assert "is not a plain file" in refused.stderr


def test_a_file_that_cannot_be_written_is_an_error_in_a_line(service: Service, tmp_path: Path) -> None:
    service.says("GET /v1/fine_tuning/jobs/j/receipts", [])
    refused = tacit("ledger", "receipt", "j", "-o", str(tmp_path), "--url", service.url, "--key", SECRET)
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"Error: {tmp_path}: ")


def test_something_else_that_answers_is_named(service: Service) -> None:
    service.says("GET /v1/models", b"<html>a router</html>")
    refused = tacit("models", "--url", service.url, "--key", SECRET)
    assert refused.exit_code == 1
    assert "no Tacit service" in refused.stderr


IDS = [f"ftjob-{digit * 32}" for digit in "0a"]
LISTED = [
    {
        "id": id,
        "status": "succeeded",
        "model": "a model with a name of several words",
        "method": {"type": "lora"},
        "training_file": f"file-{id[-32:]}",
        "privacy": {"epsilon": 3.0, "share": 0.25},
        "created_at": 1_700_000_000,
    }
    for id in IDS
]


def test_through_a_pipe_each_item_is_a_line_with_whole_ids(service: Service) -> None:
    service.says("GET /v1/fine_tuning/jobs", {"data": LISTED, "has_more": False})
    lines = tacit("jobs", "list", "--url", service.url, "--key", "k").stdout.splitlines()
    assert len(lines) == 3
    for job, line in zip(LISTED, lines[1:], strict=True):
        for words in (job["id"], job["training_file"], job["model"], "2023-11-14 22:13:20"):
            assert words in line
    service.says("GET /v1/files/file-1", {"id": "file-1", "sha256": "ab" * 32, "a_rather_long_name_of_a_field": 1})
    assert "ab" * 32 in tacit("files", "show", "file-1", "--url", service.url, "--key", "k").stdout


@pytest.mark.parametrize("room", [40, 60, 80, 100, 200])
def test_on_a_terminal_ids_stay_whole_and_other_columns_fold_or_go(
    service: Service, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    wide = Console(highlight=False, soft_wrap=True, force_terminal=True, no_color=True, width=room, file=io.StringIO())
    monkeypatch.setattr("cli.output.console", wide)
    service.says("GET /v1/fine_tuning/jobs", {"data": LISTED, "has_more": False})
    assert tacit("jobs", "list", "--url", service.url, "--key", "k").exit_code == 0
    said = wide.file.getvalue()  # type: ignore[attr-defined]
    assert all(id in said for id in IDS)
    assert (LISTED[0]["training_file"] in said) == (room == 200)
    assert ("epsilon" in said.splitlines()[0]) == (room >= 80)
    assert ("Not shown for want of room" in said) == (room < 200)


@pytest.mark.parametrize(
    "command",
    [
        ("raise", "b-1", "--epsilon", "9"),
        ("correct", "b-1", "--noise-multiplier", "1", "--sample-rate", "0.1", "--steps", "1"),
        ("reprice", "b-1"),
        ("accept-loss", "b-1"),
        ("new-fingerprint-key", "key"),
    ],
)
def test_what_the_operator_cannot_undo_is_asked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("00")
    refused = tacit("ledger", *command, "--reason", "r", "--admin-url", "postgresql+psycopg://nobody@127.0.0.1:9/x")
    assert refused.exit_code == 1
    assert "say so with --yes" in refused.stderr
