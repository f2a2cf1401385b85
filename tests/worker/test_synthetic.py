"""Text that a job samples from what it releases: by public values alone, at no charge, the same whatever happens."""

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import dpcore.synthetic
from domain.kit.settings import WorkerSettings
from domain.kit.tables import job, job_event
from domain.storage.blobs import get_bytes
from dpcore.terms.synthetic import Synthetic
from ledger.tables import work
from ledger.work import request_stop
from tests.worker import tiny
from tests.worker.books import lose, wrong
from tests.worker.service import PATIENCE, Service, Worker
from worker import drain, synthetic
from worker.attempt import attempt

STEPS = 10
ASKED = {"records": 7, "max_new_tokens": 6, "top_p": 0.95, "seed": 11}
PROMPTS = [{"prompt": "the old apple"}, {"prompt": "iron", "weight": 3}]


@pytest.fixture
def writer(service: Service, tmp_path: Path) -> Path:
    """The service's one model is a language model from now on."""
    tiny.save_writer(tmp_path / "writer")
    service.model = tmp_path / "writer"
    return service.model


@pytest.fixture
def go(engine: sa.Engine, settings: WorkerSettings, writer: Path, soon_heard: None) -> Callable[[str], None]:
    own = settings.model_copy(update={"models": {"tiny": writer}})
    return lambda job_id: attempt(engine, own, job_id)


def submitted(service: Service, asked: Mapping[str, Any], task: str = "text", seed: int = 1, **more: Any) -> str:
    """A job on rows of this seed."""
    texts, labels = tiny.rows(60, seed=seed)
    rows: Sequence[Any] = texts if task == "text" else [text.split(" ", 1) for text in texts]
    train = service.add_file(rows, labels, private=True, task=task)
    public = service.add_file(rows[:4], labels[:4], private=False, task=task)
    kept = Synthetic.model_validate(asked).model_dump(mode="json", exclude_none=True)
    numbers = {"steps": STEPS, "batch": 20, "hint": False} | more
    return service.submit(train_file=train, eval_file=public, task=task, synthetic=kept, **numbers)


def left(service: Service, id: str) -> dict[str, bytes]:
    """What the job released, by kind."""
    return {kind: get_bytes(service.store, row.blob) for kind, row in service.released(id).items()}


def rows_of(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.decode().splitlines()]


def stock(base: Path, adapter: bytes, folder: Path, report: Mapping[str, Any], prompts: Sequence[str]) -> list[str]:
    """What transformers and PEFT alone sample, as the report says: each prompt's records in one batch."""
    with zipfile.ZipFile(io.BytesIO(adapter)) as files:
        files.extractall(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(folder)).eval()
    model.generation_config = GenerationConfig(**report["generate"])
    ends, texts = set(report["generate"]["eos_token_id"]), []
    torch.manual_seed(report["asked"]["seed"])
    for prompt, count in zip(prompts, Synthetic.model_validate(report["asked"]).counts, strict=True):
        asked = tokenizer([prompt] * count, return_tensors="pt", add_special_tokens=False)
        for row in model.generate(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"]).tolist():
            written = row[asked["input_ids"].shape[1] :]
            cut = next((at for at, token in enumerate(written) if token in ends), len(written))
            if tokenizer.decode(written[:cut], skip_special_tokens=True).strip():  # the others are left out
                whole = [*row[: len(row) - len(written)], *written[:cut]]
                texts.append(tokenizer.decode(whole, skip_special_tokens=True))
    return texts


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_file_is_what_stock_libraries_sample_from_the_adapter(
    service: Service, go: Callable[[str], None], writer: Path, tmp_path: Path, temperature: float
) -> None:
    # Without chance the base model's own words: trained on noise it may write nothing, and nothing is left out here.
    rate = 0.2 if temperature else 1e-5
    id = submitted(service, ASKED | {"prompts": PROMPTS, "temperature": temperature}, learning_rate=rate)
    go(id)
    made = left(service, id)
    assert set(made) == {"adapter", "report", "synthetic", "synthetic_card"}
    report = json.loads(made["report"])["synthetic"]
    assert report["sha256"] == hashlib.sha256(made["synthetic"]).hexdigest()
    texts = [row["text"] for row in rows_of(made["synthetic"])]
    wanted = [prompt["prompt"] for prompt in PROMPTS]
    assert texts == stock(writer, made["adapter"], tmp_path / "adapter", report, wanted)
    first = [text.startswith(wanted[0]) for text in texts]
    assert 0 < sum(first) <= 2 < len(first) <= 7
    assert sorted(first, reverse=True) == first
    assert wrong(service, id) == []  # nothing beyond the steps


def test_no_reader_of_lines_breaks_a_sampled_text_apart() -> None:
    rows = [{"text": f"one{end}two"} for end in ("\n", "\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c")]
    assert rows_of(synthetic.jsonl(rows)) == rows


def test_nothing_but_the_request_steers_it(
    service: Service, go: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs on other rows begin their records with the same tokens, and tell generate the same."""
    told: list[Any] = []
    real = synthetic.sample

    def seen(model: Any, tokenizer: Any, wanted: Any, kind: Any, begin: Any, should_stop: Any) -> Any:
        told.append((wanted, kind, begin, dpcore.synthetic.settings(wanted, model).to_dict()))
        return real(model, tokenizer, wanted, kind, begin, should_stop)

    monkeypatch.setattr(synthetic, "sample", seen)
    for seed in (1, 2):
        go(submitted(service, ASKED | {"prompts": PROMPTS}, seed=seed))
    words = AutoTokenizer.from_pretrained(service.model)
    assert told[0] == told[1]
    assert told[0][2] == [words(prompt["prompt"])["input_ids"] for prompt in PROMPTS]


def test_a_text_without_prompts_is_written_from_its_beginning(service: Service, go: Callable[[str], None]) -> None:
    id = submitted(service, ASKED)
    go(id)
    rows = rows_of(left(service, id)["synthetic"])
    assert 0 < len(rows) <= 7
    assert all(row.keys() == {"text"} and 1 <= len(row["text"].split()) <= 6 for row in rows)


def test_completions_go_on_from_their_prompts(service: Service, go: Callable[[str], None]) -> None:
    id = submitted(service, ASKED | {"prompts": PROMPTS}, task="completion")
    go(id)
    rows = rows_of(left(service, id)["synthetic"])
    assert {row["prompt"] for row in rows} == {"the old apple", "iron"}
    assert all(row.keys() == {"prompt", "completion"} and row["completion"].strip() for row in rows)
    card = left(service, id)["synthetic_card"].decode()
    report = json.loads(left(service, id)["report"])
    for said in (id, report["synthetic"]["sha256"], report["privacy"]["budget"], '"iron"', "nothing was anonymised"):
        assert said in card


@pytest.mark.sampled(1)
@pytest.mark.parametrize("method", ["full", "bitfit", "side", "reversible", "distill", "prune", "zo"])
def test_every_method_leaves_a_model_that_is_sampled_from(
    service: Service, go: Callable[[str], None], method: str
) -> None:
    numbers = {"numbers": {"teacher_steps": 4}} if method == "distill" else {}
    id = submitted(service, ASKED | {"prompts": PROMPTS}, method=method, learning_rate=1e-5, **numbers)
    go(id)
    assert len(rows_of(left(service, id)["synthetic"])) > 0


def dying(service: Service, id: str, at: tuple[str, int, str] | None) -> int:
    told = {"job": id, "secret": "one for all", "at": at, "grants": None}
    return Worker.start(service, 60, {"DYING": json.dumps(told)}, "tests.worker.dying").process.wait(PATIENCE)


def test_a_kill_while_sampling_charges_nothing_more_and_ends_with_the_same_bytes(
    service: Service, writer: Path
) -> None:
    killed, other = (submitted(service, ASKED | {"prompts": PROMPTS}) for _ in range(2))
    assert dying(service, other, None) == 0
    assert dying(service, killed, ("dpcore.synthetic:batches", 2, "after")) == -9
    paid = service.authorised(killed)
    assert (paid, service.released(killed)) == (STEPS, {})
    lose(service)
    assert dying(service, killed, None) == 0
    assert service.authorised(killed) == paid
    assert wrong(service, killed) == []
    assert left(service, killed)["synthetic"] == left(service, other)["synthetic"]


def while_sampling(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Something happens once, before the first token of a batch."""
    real, done = dpcore.synthetic.batches, []

    def batches(*arguments: Any) -> Any:
        if not done:
            done.append(True)
            happens()
        return real(*arguments)

    monkeypatch.setattr(dpcore.synthetic, "batches", batches)


def test_a_job_is_cancelled_while_it_samples_at_the_price_of_its_steps(
    service: Service, go: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    id = submitted(service, ASKED | {"prompts": PROMPTS})

    def cancel() -> None:
        with service.api.begin() as c:
            request_stop(c, id)
        time.sleep(2)  # four beats

    while_sampling(monkeypatch, cancel)
    go(id)
    assert (service.status(id), service.released(id)) == ("cancelled", {})
    paid = service.ledger(id)
    assert service.settlement(id).spent_change == [STEPS * cost for cost in paid.step_cost]


def test_a_worker_told_to_end_while_it_samples_lets_go_and_that_is_no_failure(
    service: Service, go: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    id = submitted(service, ASKED | {"prompts": PROMPTS})
    while_sampling(monkeypatch, drain._draining.set)
    try:
        go(id)
    finally:
        drain._draining.clear()
    assert (service.status(id), service.released(id)) == ("running", {})
    row = service.one(sa.select(work).where(work.c.job_id == id))
    assert row.excused_fence == row.fence
    go(id)
    assert "synthetic" in service.released(id)
    assert service.authorised(id) == STEPS


def test_what_goes_wrong_in_sampling_does_not_lose_the_adapter(
    service: Service, go: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("words that are for the log")

    monkeypatch.setattr(synthetic, "sample", broken)
    id = submitted(service, ASKED | {"prompts": PROMPTS})
    go(id)
    assert (service.status(id), set(service.released(id))) == ("succeeded", {"adapter", "report"})
    assert json.loads(left(service, id)["report"])["synthetic"]["why"].endswith("sampled from: RuntimeError")
    said = service.one(sa.select(job_event).where(job_event.c.job_id == id, job_event.c.name == "synthetic.failed"))
    assert (said.level, "words" in said.message) == ("warn", False)


@pytest.mark.verify  # a kill while it samples is in make test
def test_workers_that_are_lost_while_they_sample_lose_the_file_alone(service: Service, writer: Path) -> None:
    id = submitted(service, ASKED | {"prompts": PROMPTS})
    for _ in range(synthetic.ATTEMPTS + 1):
        assert dying(service, id, ("dpcore.synthetic:batches", 1, "after")) == -9
        lose(service)
    assert dying(service, id, ("dpcore.synthetic:batches", 1, "after")) == 0
    assert (service.status(id), set(service.released(id))) == ("succeeded", {"adapter", "report"})
    assert wrong(service, id) == []


def test_a_prompt_that_leaves_no_room_ends_the_job_before_anything_is_paid(
    service: Service, go: Callable[[str], None]
) -> None:
    id = submitted(service, ASKED | {"prompts": ["the " * 30]})
    go(id)
    assert (service.status(id), service.authorised(id)) == ("failed", 0)
    error = service.one(sa.select(job.c.error).where(job.c.id == id)).error
    assert error["code"] == "cannot_sample"
    assert "synthetic.prompts: prompt 1 has 30 tokens, and with 6 new ones" in error["message"]
