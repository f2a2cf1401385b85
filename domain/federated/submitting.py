"""Submitting a federated job: its own silo is reserved as any other job, those of the others were when they accepted.
Nothing is asked of another tenant's balance, so that no refusal tells anything of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from domain.access.grants import Viewer
from domain.federated.invitations import comparable, of_viewer, status_of
from domain.jobs import life
from domain.jobs.resolving import Planned
from domain.jobs.submit import submit
from domain.kit.ids import new_id
from domain.kit.refusals import Conflict, Invalid, NotFound
from domain.kit.tables import file, invitation, job_file, silo
from domain.storage.blobs import Store
from dpcore.terms.federated.options import MOST_MASKED
from dpcore.terms.methods.federated_lora import Options
from ledger import reserve

PARAM = "method.federated-lora.silos"


def submit_federated(
    connection: sa.Connection, planned: Planned, store: Store, *, job_id: str, viewer: Viewer, check_first: bool
) -> list[str]:
    """Insert the job, the silo of its training file with its reservation, and who takes part; the caller commits, then
    sends hints. Answers the silos' jobs.

    Raises what `domain.jobs.submit.submit` raises of the own silo; Invalid for fewer silos than a round needs, or more
    units than a sum behind masks has room for; NotFound
    for an invitation that is not the caller's; Conflict for one that is not accepted, used already, ended, or asks for
    something else than this job.
    """
    options = Options.model_validate(planned.draft.program.options)
    least = max(2, options.least)
    if 1 + len(options.silos) < least:
        raise Invalid(
            f"a round needs {least} silos; there are {1 + len(options.silos)}: the training file and those of accepted "
            "invitations",
            code="too_few_silos",
            param=PARAM,
        )
    invited = _locked(connection, viewer, options.silos)
    for row in invited:
        _require_fitting(row, planned)
    declared = planned.sources[0].declared_size + sum(row.declared_size for row in invited)
    if options.masked and declared > MOST_MASKED:
        raise Invalid(
            f"the silos declare {declared} units together, and a sum behind masks has room for {MOST_MASKED}: leave a "
            "silo out, or send masked: false",
            code="too_many_records",
            param=PARAM,
        )
    own = new_id("ftjob", "-")
    submit(connection, _alone(planned), store, job_id=own, viewer=viewer, check_first=check_first)
    wanted, program = planned.wanted, planned.draft.program
    life.federated(
        connection,
        job_id,
        1 + len(invited),
        tenant_id=viewer.tenant_id,
        created_by=viewer.key_id,
        model=wanted.model,
        model_revision=planned.model_revision,
        silo_job=own,
        validation_file=wanted.validation_file,
        method=planned.draft.method,
        plan=program.model_dump(mode="json"),
        privacy=planned.privacy(),
        seed=program.seed,
        suffix=wanted.suffix,
        metadata=dict(wanted.metadata),
        intended_use=wanted.intended_use,
    )
    reserve.reserve(connection, job_id, [])
    children = [own, *(row.job_id for row in invited)]
    sizes = [planned.sources[0].declared_size, *(row.declared_size for row in invited)]
    for number, (child, size) in enumerate(zip(children, sizes, strict=True), start=1):
        connection.execute(
            silo.insert().values(
                job_id=child,
                parent_id=job_id,
                name=f"silo-{number}",
                invitation_id=None if number == 1 else invited[number - 2].id,
                declared_size=size,
            )
        )
        life.joined(connection, child)
    return children


def _alone(planned: Planned) -> Planned:
    """The own silo's job: the same without the others, and without what is done with their mean."""
    draft = planned.draft
    name = draft.program.method
    options = {**draft.program.options, "silos": []}
    method = {**draft.method, name: {**draft.method[name], "silos": []}}
    program = draft.program.model_copy(update={"options": options})
    wanted = replace(planned.wanted, validation_file=None, allow_duplicate=True)
    return replace(planned, wanted=wanted, draft=replace(draft, method=method, program=program))


def _locked(connection: sa.Connection, viewer: Viewer, named: Sequence[str]) -> list[sa.Row[Any]]:
    """The invitations in the order of the request, none of which changes until the caller commits. Raises NotFound."""
    size = (
        sa.select(file.c.declared_size)
        .join(job_file, job_file.c.file_id == file.c.id)
        .where(job_file.c.job_id == invitation.c.job_id)
    )
    own = (
        of_viewer(viewer)
        .add_columns(size.scalar_subquery().label("declared_size"))
        .where(invitation.c.tenant_id == viewer.tenant_id, invitation.c.id.in_(named))
        .order_by(invitation.c.id)
        .with_for_update(of=invitation)
    )
    found = {row.id: row for row in connection.execute(own)}
    if any(name not in found for name in named):
        raise NotFound("invitation", PARAM)
    return [found[name] for name in named]


def _require_fitting(row: sa.Row[Any], planned: Planned) -> None:
    """Raises Conflict for an invitation that is not to be used for this job."""
    standing = status_of(row)
    if standing != "accepted":
        raise Conflict(
            f"the invitation {row.id} is {standing}; a job takes those that are accepted",
            code="invitation_not_accepted",
            param=PARAM,
        )
    program, (training, *_) = planned.draft.program, planned.sources
    asked = {
        "model": (row.asked["model"], row.asked["model_revision"]),
        "options": comparable(row.asked["options"]),
        "seed": row.asked["seed"],
        "task": row.asked["task"],
        "labels": sorted(row.asked["labels"]),
        "unit": row.asked["unit"],
    }
    wants = {
        "model": (planned.wanted.model, planned.model_revision),
        "options": comparable(program.options),
        "seed": program.seed,
        "task": training.task,
        "labels": sorted(training.labels or ()),
        "unit": planned.budget.unit,
    }
    differ = [name for name in wants if wants[name] != asked[name]]
    if differ:
        raise Conflict(
            f"the invitation {row.id} was accepted for a job with other {' and '.join(differ)}: send what it says, or "
            "ask for another one",
            code="silos_differ",
            param=PARAM,
        )
