"""The stock `openai` package against a running server: the calls that fine-tuning users make, unchanged."""

import openai
import pytest

from tests.api.conftest import CSV, ROWS, World
from tests.api.test_jobs import ADAPTER, finish

pytestmark = pytest.mark.usefixtures("quick_checks")


@pytest.fixture(scope="module")
def steward(world: World, address: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=world.keys["one"]["steward"], base_url=f"{address}/v1")


@pytest.fixture(scope="module")
def analyst(world: World, address: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=world.keys["one"]["analyst"], base_url=f"{address}/v1")


@pytest.fixture(scope="module")
def training_file(world: World, steward: openai.OpenAI) -> str:
    extra = {"privacy_budget": {"epsilon": 8}, "declared_size": ROWS, "labels": ["0", "1"]}
    made = steward.files.create(file=("rows.csv", CSV), purpose="fine-tune", extra_body=extra)
    assert steward.files.wait_for_processing(made.id).status == "processed"
    world.grant(made.budget)  # type: ignore[attr-defined]
    return made.id


def test_files(steward: openai.OpenAI, training_file: str) -> None:
    assert steward.files.retrieve(training_file).bytes == len(CSV)
    evals = [steward.files.create(file=("e.csv", b"text,label\na,1\n"), purpose="evals").id for _ in range(3)]
    pages = steward.files.list(purpose="evals", limit=2)
    assert [f.id for f in pages] == evals[::-1]  # walks on to the second page
    assert steward.files.content(evals[0]).text == '{"text": "a", "label": "1"}\n'
    assert steward.files.delete(evals[0]).deleted is True
    with pytest.raises(openai.NotFoundError):
        steward.files.retrieve(evals[0])


def test_jobs(world: World, analyst: openai.OpenAI, training_file: str) -> None:
    supervised = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto", "batch_size": 20}}}
    job = analyst.fine_tuning.jobs.create(
        model="minilm-l6",
        training_file=training_file,
        method=supervised,
        seed=7,
        suffix="mine",
        metadata={"team": "red"},
        extra_body={"privacy": {"epsilon": 2}},
    )
    assert (job.status, job.seed, job.hyperparameters.batch_size) == ("queued", 7, 20)
    assert job.privacy["epsilon"] <= 2  # type: ignore[attr-defined]
    assert analyst.fine_tuning.jobs.retrieve(job.id) == job
    old_style = analyst.fine_tuning.jobs.create(
        model="minilm-l6",
        training_file=training_file,
        hyperparameters={"batch_size": 30},
        extra_body={"privacy": {"epsilon": 1}},
    )
    assert [j.id for j in analyst.fine_tuning.jobs.list(limit=1)] == [old_style.id, job.id]
    assert [j.id for j in analyst.fine_tuning.jobs.list(metadata={"team": "red"})] == [job.id]
    assert analyst.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert [e.type for e in analyst.fine_tuning.jobs.list_events(job.id, limit=1)] == ["message", "message"]
    assert list(analyst.fine_tuning.jobs.checkpoints.list(job.id)) == []
    assert [m.id for m in analyst.models.list()] == ["minilm-l6"]


def test_results(world: World, analyst: openai.OpenAI) -> None:
    with world.engine("worker").connect() as at_work:
        done = analyst.fine_tuning.jobs.retrieve(finish(world, world.private_file(), at_work))
    assert (done.status, done.trained_tokens) == ("succeeded", None)
    assert done.fine_tuned_model
    assert done.finished_at
    assert analyst.files.content(done.result_files[0]).content == ADAPTER


def test_errors_are_typed_and_final_ones_are_not_retried(
    world: World, analyst: openai.OpenAI, training_file: str
) -> None:
    attempts: list[str] = []
    unfinished = analyst.fine_tuning.jobs.list(metadata={"team": "red"}).data[0].id
    analyst._client.event_hooks["request"] = [lambda request: attempts.append(request.url.path)]
    with pytest.raises(openai.PermissionDeniedError) as refused:
        analyst.fine_tuning.jobs.create(
            model="minilm-l6", training_file=training_file, extra_body={"privacy": {"epsilon": 50}}
        )
    with pytest.raises(openai.ConflictError) as early:
        analyst.get(f"/fine_tuning/jobs/{unfinished}/adapter", cast_to=object)
    analyst._client.event_hooks["request"] = []
    assert (refused.value.code, refused.value.param) == ("privacy_budget_exceeded", "privacy.epsilon")
    assert str(refused.value.request_id).startswith("req_")
    assert early.value.code == "no_adapter"
    assert len(attempts) == 2
    with pytest.raises(openai.BadRequestError) as wrong:
        analyst.fine_tuning.jobs.create(model="nope", training_file=training_file)
    assert "minilm-l6" in wrong.value.message
    with pytest.raises(openai.AuthenticationError):
        analyst.with_options(api_key="sk-nope").models.list()
    with pytest.raises(openai.PermissionDeniedError):
        analyst.files.delete(training_file)
