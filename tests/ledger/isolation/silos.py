"""What sessions do to invitations, silos and their rounds. `fed` is a federated job, whose one silo is `job`."""

from tests.ledger.isolation.sessions import Act, sql

_JOB = (
    "INSERT INTO job (id, tenant_id, created_by, model, method, plan, privacy, seed)"
    " VALUES (:fed, :tenant, :steward, 'm', '{}', '{}', '{}', 0)"
)
_WORK = "INSERT INTO ledger.work (job_id) VALUES (:fed)"
PARENT = sql("submit a federated job", "api", _JOB, _WORK)
JOIN = sql("join", "api", "INSERT INTO silo (job_id, parent_id, name, declared_size) VALUES (:job, :fed, 'silo-0', 9)")
JOIN_INVITED = sql(
    "join by invitation",
    "api",
    "INSERT INTO silo (job_id, parent_id, name, invitation_id, declared_size)"
    " VALUES (:job, :fed, 'silo-0', :invitation, 9)",
)
_TAKE = "UPDATE ledger.work SET fence = fence + 1, owner = 'w', lease_until = clock_timestamp() + interval '1 minute'"
CLAIM_PARENT = sql("claim the federated job", "worker", f"{_TAKE} WHERE job_id = :fed")
TAKE_PARENT_OVER = sql(
    "claim the federated job after its lease ran out",
    "worker",
    "UPDATE ledger.work SET lease_until = clock_timestamp() WHERE job_id = :fed",
    f"{_TAKE} WHERE job_id = :fed",
)


def open_round(number: int) -> Act:
    return sql(
        f"open round {number}",
        "worker",
        "INSERT INTO federated_round (job_id, number, fence, blob, sha256, closes_at)"
        f" VALUES (:fed, {number}, 1, 'exchange/' || :fed || '/{number}', repeat('0a', 32), now() + interval '1 hour')",
    )


CLOSE = sql(
    "close the round",
    "worker",
    "UPDATE federated_round SET fence = 1, came = '[]' WHERE job_id = :fed AND closed_at IS NULL",
)


def begin(number: int = 0, steps: int = 10) -> Act:
    return sql(
        f"begin round {number} with {steps} steps",
        "worker",
        f"INSERT INTO silo_round (job_id, number, fence, steps) VALUES (:job, {number}, 1, {steps})",
    )


SEND = sql(
    "send the message",
    "worker",
    "UPDATE silo_round SET sent_fence = 1, blob = 'exchange/' || :fed || '/0/' || :job, sha256 = repeat('0b', 32)"
    " WHERE job_id = :job AND number = 0",
)
INVITE = sql(
    "invite",
    "api",
    "INSERT INTO invitation (id, tenant_id, created_by, file_id, guest, asked, expires_at)"
    " VALUES (:invitation, :tenant, :steward, :file_b, :tenant, '{}', now() + interval '1 day')",
)
WITHDRAW = sql("withdraw", "api", "UPDATE invitation SET withdrawn_by = :second WHERE id = :invitation")


def accept(job: str = "job") -> Act:
    return sql(
        f"accept with {job}",
        "api",
        f"UPDATE invitation SET accepted_by = :steward, job_id = :{job} WHERE id = :invitation",
    )


PLANT = sql("a key for a blob", "worker", r"INSERT INTO data_key (blob, wrapped, master) VALUES (:blob, '\x00', 'm')")
DESTROY = sql("destroy the key", "worker", "DELETE FROM data_key WHERE blob = :blob")
