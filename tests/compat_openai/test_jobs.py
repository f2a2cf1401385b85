"""Jobs by the stock `openai` package, from submission to the adapter, paused, resumed and cancelled on the way."""

import io
import json
import threading
import time
import zipfile
from collections.abc import Callable
from typing import Any

import openai
import pytest

Submit = Callable[..., Any]
Work = Callable[[str], None]
PATIENCE = 300


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)


def test_a_job_is_created_with_what_others_take(analyst: openai.OpenAI, training_file: str) -> None:
    supervised = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto", "batch_size": 20}}}
    job = analyst.fine_tuning.jobs.create(
        model="tiny",
        training_file=training_file,
        method=supervised,
        seed=7,
        suffix="mine",
        metadata={"team": "red"},
        extra_body={"privacy": {"epsilon": 2}},
    )
    assert (job.object, job.status, job.seed, job.hyperparameters.batch_size) == ("fine_tuning.job", "queued", 7, 20)
    assert (job.error, job.fine_tuned_model, job.finished_at, job.estimated_finish) == (None, None, None, None)
    assert job.privacy["epsilon"] <= 2  # type: ignore[attr-defined]
    assert analyst.fine_tuning.jobs.retrieve(job.id) == job
    old_style = analyst.fine_tuning.jobs.create(
        model="tiny",
        training_file=training_file,
        hyperparameters={"batch_size": 30},
        extra_body={"privacy": {"epsilon": 1}},
    )
    assert old_style.hyperparameters.batch_size == 30
    assert job.queue_position < old_style.queue_position  # type: ignore[attr-defined]
    assert "tiny" in [m.id for m in analyst.models.list()]
    assert analyst.models.retrieve("tiny").object == "model"


def test_a_job_of_two_phases_is_asked_for_by_its_share(analyst: openai.OpenAI, training_file: str, work: Work) -> None:
    numbers = {"steps": 10, "batch_size": 20, "full_learning_rate": 0.001}
    bitfit: Any = {"type": "bitfit", "bitfit": {"full_steps": 5, "hyperparameters": numbers}}
    extra = {"privacy": {"share": 0.1}}
    job = analyst.fine_tuning.jobs.create(model="tiny", training_file=training_file, method=bitfit, extra_body=extra)
    privacy: Any = job.privacy  # type: ignore[attr-defined]
    assert 0.09 < privacy["share"] <= 0.1
    assert [(phase["name"], phase["steps"]) for phase in privacy["phases"]] == [("everything", 5), ("biases", 10)]
    work(job.id)
    done: Any = analyst.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.privacy["steps_authorised"]) == ("succeeded", 15)
    assert done.privacy["share_used"] == pytest.approx(privacy["share"], abs=2e-6)
    said = [event.message for event in analyst.fine_tuning.jobs.list_events(job.id)]
    assert "Phase biases: step 15 of 15: authorised and charged." in said
    twin: Any = {"allow_duplicate": True, "privacy": {"share": 1}}
    with pytest.raises(openai.PermissionDeniedError) as refused:
        analyst.fine_tuning.jobs.create(model="tiny", training_file=training_file, method=bitfit, extra_body=twin)
    body: Any = refused.value.response.json()
    assert (refused.value.param, 0 < body["largest_share"] < 1) == ("privacy.share", True)


def test_jobs_are_listed_by_pages_and_metadata(analyst: openai.OpenAI, submit: Submit) -> None:
    made = [submit(metadata={"run": str(i), "of": "pages"}).id for i in range(5)]
    ours = analyst.fine_tuning.jobs.list(limit=2, metadata={"of": "pages"})
    assert [j.id for j in ours] == made[::-1]
    assert [j.id for j in analyst.fine_tuning.jobs.list(metadata={"of": "pages", "run": "3"})] == [made[3]]
    assert not {*made} & {j.id for j in analyst.fine_tuning.jobs.list(extra_query={"metadata": "null"})}
    assert [j.id for j in analyst.fine_tuning.jobs.list(after=made[1], limit=1).data] == [made[0]]


def test_a_job_is_cancelled(analyst: openai.OpenAI, submit: Submit) -> None:
    id = submit().id
    ended = analyst.fine_tuning.jobs.cancel(id)
    assert ended.status == "cancelled"
    assert ended.finished_at
    assert analyst.fine_tuning.jobs.cancel(id) == ended


def test_a_job_is_paused_resumed_and_its_adapter_downloaded(analyst: openai.OpenAI, submit: Submit, work: Work) -> None:
    id = submit(steps=200).id
    worker = threading.Thread(target=work, args=(id,))
    worker.start()
    until(lambda: analyst.fine_tuning.jobs.retrieve(id).progress["step"] > 20)  # type: ignore[attr-defined]
    running = analyst.fine_tuning.jobs.pause(id)
    assert (running.status, running.status_detail) == ("running", "pausing")  # type: ignore[attr-defined]
    worker.join(PATIENCE)
    paused = analyst.fine_tuning.jobs.retrieve(id)
    assert (paused.status, paused.status_detail) == ("queued", "paused")  # type: ignore[attr-defined]
    assert analyst.fine_tuning.jobs.resume(id).status_detail is None  # type: ignore[attr-defined]
    work(id)

    done = analyst.fine_tuning.jobs.retrieve(id)
    assert (done.status, done.trained_tokens) == ("succeeded", None)
    assert done.fine_tuned_model
    result: Any = analyst.models.retrieve(done.fine_tuned_model)
    assert (result.id, result.object, result.created) == (done.fine_tuned_model, "model", done.finished_at)
    assert (result.available, result.job, result.parent) == (False, id, "tiny")
    for other in (f"ft:tiny:x:{id}", f"ft:tiny::{id}x", "ft:tiny::ftjob-0", "nothing"):
        with pytest.raises(openai.NotFoundError):
            analyst.models.retrieve(other)
    assert done.finished_at
    assert done.finished_at % 60 == 0 or done.finished_at == done.created_at
    adapter, report = done.result_files
    with zipfile.ZipFile(io.BytesIO(analyst.files.content(adapter).content)) as archive:
        assert {"adapter_config.json", "adapter_model.safetensors"} <= set(archive.namelist())
    told = json.loads(analyst.files.content(report).text)
    assert told["privacy"]["steps_authorised"] == done.privacy["steps_authorised"]  # type: ignore[attr-defined]

    events = list(analyst.fine_tuning.jobs.list_events(id, limit=4))  # more than one page
    assert {e.object for e in events} == {"fine_tuning.job.event"}
    assert all(e.created_at % 60 == 0 and e.level == "info" for e in events)
    names = [e.name for e in events[::-1] if e.type == "message"]  # type: ignore[attr-defined]
    assert names == ["job.queued", "job.started", "job.pausing", "job.paused", "job.resumed", "job.succeeded"]
    steps = [e.data["step"] for e in events[::-1] if e.type == "metrics"]  # type: ignore[index]
    assert steps == sorted(steps)
    assert len(steps) <= 21  # 20 chunks, and one that the pause cut in two
    assert list(analyst.fine_tuning.jobs.checkpoints.list(id)) == []


def test_a_failure_says_whose_fault_it_is(
    analyst: openai.OpenAI, submit: Submit, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker import build

    id = submit().id
    monkeypatch.setattr(build, "find", lambda settings, name: None)
    work(id)
    failed = analyst.fine_tuning.jobs.retrieve(id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("model_unavailable", None)
    assert failed.error.fault == "service"  # type: ignore[attr-defined]
    assert "operator" in failed.error.hint  # type: ignore[attr-defined]
    assert analyst.fine_tuning.jobs.list_events(id, limit=1).data[0].level == "error"
