"""Jobs that ask for an audit of their training."""

import pytest

from api.dashboard import estimate, jobs
from api.jobs.schemas import Job
from dpcore.terms.audits import require_auditable
from dpcore.terms.methods import method_names
from dpcore.terms.tasks import KINDS
from tests.api.conftest import JOBS, World, job_body

ESTIMATE = f"{JOBS}/estimate"


def test_a_job_says_that_it_is_audited_and_so_does_the_next_like_it(world: World) -> None:
    file = world.private_file()["id"]
    body = job_body(file, 1.0, audit=True)
    assert world.post(ESTIMATE, body).status_code == 200
    made = world.post(JOBS, body).json()
    assert made["audit"] is True
    assert world.get(f"{JOBS}/{made['id']}").json()["audit"] is True
    query = jobs.query_of(jobs.request_of(Job.model_validate(made)))
    assert query["audit"] == "true"
    assert estimate.body_of({key: str(value) for key, value in query.items()}).audit
    plain = world.post(JOBS, job_body(file, 1.0)).json()
    assert plain["audit"] is False
    assert "audit" not in jobs.query_of(jobs.request_of(Job.model_validate(plain)))


def test_an_audit_is_asked_for_by_yes_or_no(world: World) -> None:
    refused = world.post(ESTIMATE, job_body(world.private_file()["id"], 1.0, audit="thorough"))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "audit")


def test_training_without_canaries_is_refused_with_the_reason() -> None:
    for method in method_names():
        for task in KINDS:
            if task == "image" or method == "federated-lora":
                with pytest.raises(ValueError, match="pictures" if task == "image" else "--how round"):
                    require_auditable(method, task)
            else:
                require_auditable(method, task)
