"""Jobs over the users of a file: from a plan to a model that stock transformers loads, and workers killed in both of
their phases: none lost, none charged twice, and no more rows changed than were chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from domain.kit.ids import new_id
from domain.kit.settings import WorkerSettings
from domain.kit.tables import job_event
from ledger.budgets import Reference, open_budget
from tests.worker import tiny
from tests.worker.books import authorised, wrong
from tests.worker.kill_matrix import AUTHORISE, PUT, SAVE, Kill, Matrix, killed, publishing, survive
from tests.worker.service import DECLARED, Service
from tests.worker.test_programs import report
from worker.attempt import attempt

ROUNDS, ROWS, VOCABULARY = 10, 5, 22
PRIVATE, PUBLIC = "rows by counts", "rows by public text"
OPTIONS: dict[str, dict[str, Any]] = {
    PRIVATE: {"rows": ROWS, "chosen_by": "private", "loss": "nce", "negatives": 6, "blocks": "none"},
    PUBLIC: {"rows": ROWS, "r": 2},
}


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    tiny.save_writer(tmp_path / "model")
    return tmp_path / "model"


@dataclass
class OverUsers(Matrix):
    """Jobs of `federated-lm` on a file of a hundred users, with rounds in chunks of one."""

    def __post_init__(self) -> None:
        self.public = self.service.add_file(*tiny.rows(40, seed=2), task="text", private=False)

    def _private(self, budget_id: str) -> str:
        """A file under a budget of its own: little noise takes a lot of one."""
        with self.service.api.begin() as c:
            open_budget(
                c,
                id=budget_id,
                tenant_id="tenant_a",
                name=budget_id,
                epsilon=Decimal(100),
                delta=Decimal("1e-5"),
                unit="user",
                max_records_per_user=4,
                reference=Reference(0.05, 200),
            )
        rows = tiny.rows(DECLARED, seed=1)
        return self.service.add_file(*rows, task="text", private=True, users=100, budget_id=budget_id)

    def submit(self, name: str) -> str:
        """A job of this name."""
        budget_id = new_id("budget")
        return self.service.submit(
            method="federated-lm",
            options={**OPTIONS[name], "local_steps": 2},
            numbers={"clip_norm": 1.0},
            steps=ROUNDS,
            batch=40,
            sigma=0.3,
            learning_rate=0.5,
            task="text",
            train_file=self._private(budget_id),
            eval_file=self.public,
            budget_id=budget_id,
            hint=False,
        )

    def steps(self, name: str) -> tuple[int, ...]:
        """Of its phases."""
        return (1, ROUNDS) if name == PRIVATE else (ROUNDS,)

    def unfit(self, name: str, files: Mapping[str, bytes]) -> list[str]:
        """Rows that changed and are not as many as were chosen, or a head that is not the embedding's any more."""
        with TemporaryDirectory() as folder:
            for file, data in files.items():
                (Path(folder) / file).write_bytes(data)
            left, base = (AutoModelForCausalLM.from_pretrained(place) for place in (folder, self.service.model))
            AutoTokenizer.from_pretrained(folder)
        tables = [model.get_input_embeddings().weight.detach() for model in (left, base)]
        changed = int((tables[0] != tables[1]).any(1).sum())
        found = [] if changed == ROWS else [f"{changed} rows changed, {ROWS} were chosen"]
        ids = torch.arange(VOCABULARY).unsqueeze(0)
        with torch.no_grad():
            scores = left(input_ids=ids).logits
            states = left.transformer(input_ids=ids).last_hidden_state
        return found if torch.allclose(scores, states @ tables[0].T, atol=1e-4) else [*found, "the head is another"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_job_over_users_leaves_a_stock_model_and_what_it_cost(
    name: str, service: Service, engine: sa.Engine, settings: WorkerSettings
) -> None:
    jobs = OverUsers(service)
    id = jobs.submit(name)
    attempt(engine, settings, id)
    assert service.status(id) == "succeeded"
    assert authorised(service, id) == [*jobs.steps(name)]
    assert wrong(service, id) == []
    assert jobs.unfit(name, jobs._files(id)) == []
    said = report(service, id)
    assert said["privacy"]["unit"] == "user"
    phases = [(p["name"], p["mechanism"], p["sample_rate"], p["steps_authorised"]) for p in said["privacy"]["phases"]]
    rounds = ("train", "Poisson-subsampled Gaussian", 0.1, ROUNDS)
    assert phases == ([("words", "Gaussian on the whole file", 1.0, 1), rounds] if name == PRIVATE else [rounds])
    quality = said["metrics"]["validation"]
    assert quality["perplexity"] < 0.98 * quality["untrained"]["perplexity"]
    events = service.all(sa.select(job_event).where(job_event.c.job_id == id, job_event.c.name == "steps.authorised"))
    assert 0 < len(events) <= 20
    assert {e.data["phase"] for e in events} == {p[0] for p in phases}


KILLS = [
    killed(PRIVATE, "before the words are counted", AUTHORISE, 1, "before", 0, 0),
    killed(PRIVATE, "the words counted, not noised", "dpcore.estimators.histogram:Histogram.sum", 1, "after", 1, 0),
    killed(PRIVATE, "the counts not stored", PUT, 1, "before", 1, 0),
    killed(PRIVATE, "the counts stored, not known", PUT, 1, "after", 1, 0),
    killed(PRIVATE, "between the phases, the counts kept", SAVE, 1, "after", 0, 0),
    # The second chooses when the weights are rehearsed.
    killed(PRIVATE, "between the phases, the rows not yet chosen", "dpcore.methods.federated_lm:begin", 4, "before", 0, 0),
    killed(PRIVATE, "between the phases, the rows chosen", "dpcore.methods.federated_lm:begin", 4, "after", 0, 0),
    killed(PRIVATE, "in the first round", "dpcore.estimators.local:Local.sum", 1, "before", 0, 1),
    killed(PRIVATE, "in the middle of a round", "dpcore.estimators.local:Local._moved", 100, "after", 0, 1),
    killed(PRIVATE, "a round not stored", PUT, 5, "before", 0, 1),
    killed(PRIVATE, "a round kept", SAVE, 5, "after", 0, 0),
    killed(PRIVATE, "at the last round", AUTHORISE, 1 + ROUNDS, "after", 0, 1),
    killed(PRIVATE, "after the last round, before publishing", SAVE, 1 + ROUNDS, "after", 0, 0),
    *publishing(PRIVATE, 0, 0),
    Kill(PRIVATE, "while it is restored", ((SAVE, 4, "after"), ("dpcore.checkpoint:restore", 1, "after")), (0, 0)),
    Kill(PRIVATE, "in the one phase, then in the other", ((PUT, 1, "before"), (AUTHORISE, 4, "after")), (1, 1)),
    Kill(PRIVATE, "in a round, then cancelled", ((AUTHORISE, 6, "after"),), (), "cancelled"),
    killed(PUBLIC, "in the middle of a round", "dpcore.estimators.local:Local._moved", 100, "after", 1),
    killed(PUBLIC, "a round kept", SAVE, 3, "after", 0),
    killed(PUBLIC, "after the last round, before publishing", SAVE, ROUNDS, "after", 0),
    *publishing(PUBLIC, 0),
]  # fmt: skip
SAMPLE = ("between the phases, the rows chosen",)


@pytest.mark.slow
@pytest.mark.verify  # kills of other methods are in test_kills.py and test_compression_kills.py
def test_a_sample_of_kills(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    survive(OverUsers(service), [kill for kill in KILLS if kill.what in SAMPLE], capsys)


@pytest.mark.verify
@pytest.mark.timeout(3600)
def test_no_kill_loses_a_job_or_charges_it_twice(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert sum(len(kill.points) for kill in KILLS) >= 20
    survive(OverUsers(service), KILLS, capsys)
