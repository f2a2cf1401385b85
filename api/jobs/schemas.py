"""Fine-tuning jobs as they go over the wire: OpenAI's fields, and what privacy adds."""

import copy
import logging
from typing import Annotated, Any, Literal, get_args

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from api.budgets.schemas import KeyName
from api.fields import Body, Delta, Epsilon, IdInBody, IntendedUse, Name, Reason, Share
from api.jobs.advice import JobAdvice, advice_of
from api.jobs.federated import JobRounds, JobSilo, PlannedRounds, planned_rounds, rounds_of, silos_of
from api.jobs.over_users import ImaginedPopulation, PlannedUpdates, imagined, planned_updates
from api.jobs.privacy import Finite, JobPrivacy, privacy_of
from api.jobs.quality import Quality, quality_of
from domain.access.grants import HeldGrant, Viewer
from domain.federated.invitations import METHOD as FEDERATED
from domain.federated.invitations import with_public_seed
from domain.federated.reading import FederatedPart
from domain.jobs.events import EventName
from domain.jobs.life import Detail
from domain.jobs.resolving import Planned, Wanted, budget_left
from domain.kit import faults
from domain.kit.logs import type_name
from domain.kit.statuses import Status
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import DEFAULT_METHOD, get_method, method_names
from dpcore.terms.presets import DEFAULT_PRESET, PRESET_HELP, UNNAMED, Preset
from dpcore.terms.synthetic import Synthetic
from ledger.budgets import Balance
from ledger.receipts import sign

logger = logging.getLogger(__name__)

NoteName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
NoteText = Annotated[str, StringConstraints(max_length=512)]
_OURS = {"n_epochs": "steps", "learning_rate_multiplier": "learning_rate"}
_MOST_EPOCHS = 10_000
RESULT_PREFIX = "ft:"
"""With which the names of results begin, and of no base model."""


def _describe_methods(schema: dict[str, Any]) -> None:
    """What each method takes, for readers: the method itself parses it, once the training file is known."""
    blocks = {}
    for name in method_names():
        method = get_method(name)
        blocks[name] = method.Options.model_json_schema()
        blocks[name]["properties"]["hyperparameters"] = method.Request.model_json_schema()
    unnamed = copy.deepcopy(blocks[DEFAULT_METHOD])
    unnamed["properties"]["preset"] = TypeAdapter(Preset).json_schema() | {
        "default": DEFAULT_PRESET,
        "description": f"options and numbers that are not named, by the file's public values; {PRESET_HELP}",
    }
    schema["properties"] |= blocks | {UNNAMED: unnamed}


class MethodChoice(Body):
    """`{"type": "lora", "lora": {"r": 8, "hyperparameters": {"steps": 200}}}`; or, as by default, left to a preset:
    `{"type": "supervised", "supervised": {"preset": "best"}}`."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_describe_methods)

    type: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,40}$")] = UNNAMED

    @model_validator(mode="after")
    def _one_block(self) -> "MethodChoice":
        for name, block in (self.model_extra or {}).items():
            if name != self.type and block is not None:
                raise ValueError(f"the options of method {self.type!r} belong in a field of that name")
            if not isinstance(block, dict | None) or not isinstance((block or {}).get("hyperparameters"), dict | None):
                raise ValueError("a method's options and its hyperparameters are objects")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """What the method calls its options, hyperparameters among them."""
        return dict((self.model_extra or {}).get(self.type) or {})


class Privacy(Body):
    """What the job may cost: epsilon or share. Delta is the budget's; a larger one may be named, a smaller one is
    refused."""

    epsilon: Epsilon | None = Field(default=None, description="default: all of the budget, while no job has used it")
    share: Share | None = Field(
        default=None,
        exclude_if=lambda share: share is None,  # so that a request of an earlier version, asked again, is the same
        description="in place of epsilon: of the budget's cap at its main order",
    )
    delta: Delta | None = None

    @field_validator("share")
    @classmethod
    def _alone(cls, share: float | None, others: ValidationInfo) -> float | None:
        if share is not None and others.data.get("epsilon") is not None:
            raise ValueError("a job is priced by its epsilon or by its share: send one of them")
        return share


class Measure(Body):
    """A measurement of the result on what the budget holds out: private, and paid for out of the job's own price."""

    share: Share = Field(
        description="of the budget's cap at its main order, below the job's own share, of which it is a part"
    )


class NewJob(Body):
    """A request for a job; everything but model and training file has a default made of public values."""

    model: IdInBody
    training_file: IdInBody
    validation_file: IdInBody | None = Field(default=None, description="a public evaluation set")
    method: MethodChoice = MethodChoice()
    hyperparameters: dict[str, Any] | None = Field(default=None, description="as in method; kept for older clients")
    privacy: Privacy = Privacy()
    measure: Measure | None = Field(
        default=None,
        exclude_if=lambda measure: measure is None,  # as share of privacy
        description="say how good the result is on units that the budget holds out; default: no measurement",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        default=None, description="of the adapter's initialisation only, never of noise or sampling"
    )
    suffix: Annotated[Name, Field(max_length=64)] | None = None
    metadata: dict[NoteName, NoteText] | None = Field(default=None, max_length=16)
    integrations: list[Any] | None = Field(default=None, description="none are offered: null, or an empty list")
    queue_days: int | None = Field(
        default=None, ge=1, le=30, description="within which a worker must begin; default and most: the budget's"
    )
    allow_duplicate: bool = Field(
        default=False,
        description="pay again for a job that has succeeded already, or was asked for in the same words shortly before",
    )
    intended_use: IntendedUse | None = Field(
        default=None,
        exclude_if=lambda use: use is None,  # as share of privacy
        description="what the result is for; a budget may want to know, and whoever approves reads it",
    )
    synthetic: Synthetic | None = Field(
        default=None,
        exclude_if=lambda synthetic: synthetic is None,  # as share of privacy
        description="text to sample from the released model, a language model's alone, without a further charge",
    )
    audit: bool = Field(
        default=False,
        exclude_if=lambda audit: not audit,  # as share of privacy
        description="let the worker audit this training on made-up records before it reads a row: a few minutes, "
        "without a charge; the bounds stand in the report and the statement, and a bound above the claim ends the job",
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_missing(cls, value: Any) -> Any:
        # Clients send null for what they leave out.
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value

    @field_validator("integrations")
    @classmethod
    def _none_offered(cls, value: list[Any] | None) -> list[Any] | None:
        if value:
            raise ValueError(
                "no integrations are offered: nothing is sent to another service while private data is learnt from; "
                "leave it out, and follow the job's events"
            )
        return value

    @model_validator(mode="after")
    def _translatable(self) -> "NewJob":
        asked = self._asked()
        if asked.get("learning_rate_multiplier") not in (None, "auto"):
            raise ValueError("hyperparameters.learning_rate_multiplier is not offered; use learning_rate")
        epochs = asked.get("n_epochs")
        if epochs in (None, "auto"):
            return self
        if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not 0 < epochs <= _MOST_EPOCHS:
            raise ValueError(f"hyperparameters.n_epochs is a number above 0, at most {_MOST_EPOCHS}, or 'auto'")
        if asked.get("steps") not in (None, "auto"):
            raise ValueError("hyperparameters.n_epochs and steps say the same: send one of them")
        return self

    def _asked(self) -> dict[str, Any]:
        return {**(self.hyperparameters or {}), **(self.method.options.get("hyperparameters") or {})}

    def wanted(self) -> Wanted:
        """The request as the domain takes it."""
        epochs = self._asked().get("n_epochs")
        asked = Wanted(
            model=self.model,
            training_file=self.training_file,
            validation_file=self.validation_file,
            method=self.method.type,
            options={k: v for k, v in self.method.options.items() if k != "hyperparameters"},
            hyperparameters={k: v for k, v in self._asked().items() if k not in _OURS and v is not None},
            epochs=epochs if isinstance(epochs, int | float) else None,
            epsilon=self.privacy.epsilon,
            share=self.privacy.share,
            delta=self.privacy.delta,
            measure=None if self.measure is None else self.measure.share,
            seed=self.seed,
            suffix=self.suffix,
            metadata=self.metadata or {},
            queue_days=self.queue_days,
            allow_duplicate=self.allow_duplicate,
            intended_use=self.intended_use,
            synthetic=self.synthetic,
            audit=self.audit,
        )
        return with_public_seed(asked)


class GrantUse(BaseModel):
    """The grant that the job is charged to beside the budget."""

    id: str
    epsilon: float | None = Field(description="its sub-limit, where that is one; neither: the budget's limit alone")
    epsilon_left: float | None
    share: float | None = Field(description="its sub-limit, where that is a part of the budget")
    share_left: float | None = Field(
        description="of its sub-limit, as a part of the budget's cap at its main order; the budget may have less left"
    )
    models: list[str] | None = Field(description="that it is for; null: all")
    methods: list[str] | None = Field(description="that it is for; null: all")
    most_steps: int | None


class Estimate(BaseModel):
    """What a job would be and cost. Nothing was charged and no row was looked at."""

    object: Literal["fine_tuning.job.estimate"] = "fine_tuning.job.estimate"
    model: str
    training_file: str
    validation_file: str | None
    method: dict[str, Any]
    privacy: JobPrivacy
    fits: bool
    jobs_that_fit: int = Field(description="jobs like this one that the budget still holds, this one among them")
    price_now: float = Field(
        description="what the budget's epsilon so far would grow by; jobs after the first cost less"
    )
    largest_epsilon: float = Field(description="at which a job of this shape would fit now; 0: none does")
    largest_share: float = Field(
        description="at which a job of this shape would fit now, the grant's limit included; 0: none does"
    )
    memory_bytes: int = Field(description="that training needs: by formula, or as a worker measured where that is more")
    worker_memory_bytes: int | None = Field(
        description="of the largest device that measured the model; null before a worker has"
    )
    fits_worker: bool | None = Field(
        description="whether that device has as much memory as training needs; null before a worker has measured"
    )
    grant: GrantUse | None = Field(description="null for a steward, who needs none")
    needs_approval: bool = Field(description="by a steward, before any worker begins")
    needs_intended_use: bool = Field(description="the budget wants to know what a job is for: say it when you submit")
    finished_twin: str | None = Field(description="a job that has succeeded with the same numbers already")
    seconds: float | None = Field(
        description="of training, at most: steps x expected batch x max_length / the tokens per second that the "
        "slowest worker of this installation measured on synthetic input, as if every record were that long; waiting "
        "and loading come on top; null until a worker has measured the model"
    )
    rounds: PlannedRounds | None = Field(description="of a federated job; null for others")
    updates: PlannedUpdates | None = Field(description="of a job over users, method federated-lm; null for others")
    advice: JobAdvice | None = Field(
        description="what may come out, a guess; null for any but the default method on single texts with labels, "
        "which alone were measured"
    )
    synthetic_tokens: int | None = Field(
        description="that are sampled at most, after training and without a charge; null for a job that samples no text"
    )
    imagined: list[ImaginedPopulation] = Field(
        description="of a job over users: what it would cost on a larger population, for planning alone; no promise to "
        "anybody. By default one of ten times and one of a hundred times as many users"
    )


class JobHyperparameters(Finite):
    """OpenAI's three, and the two that this service trains with."""

    n_epochs: None = None
    batch_size: int
    learning_rate_multiplier: None = None
    steps: int
    learning_rate: float


class Progress(Finite):
    """Steps that the ledger has authorised; it moves in at most 20 public chunks."""

    step: int
    total_steps: int
    fraction: float


class JobError(BaseModel):
    """Why a job failed, who can do something about it, and what. After the first authorised step no cause is shown."""

    code: str
    message: str
    param: str | None
    fault: Literal["user", "service"]
    hint: str


class ChargeReceipt(BaseModel):
    """Where the job's charge stands in its budget's ledger, with the service's Ed25519 signature in hexadecimal.

    The whole receipt, to be checked without the service: `GET .../receipts`.
    """

    budget: str
    seq: int
    hash: str
    signature: str


class JobDecision(KeyName):
    """Who decided on a job that waited, and why."""

    decision: Literal["approved", "rejected"]
    reason: str | None
    at: int = Field(description="unix seconds, a whole minute")


class Job(BaseModel):
    """A fine-tuning job."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None = Field(
        description="unix seconds, a whole minute, of a running job: by the steps still to be authorised and what the "
        "slowest worker measured on synthetic input, as if every record were as long as can be; null before that"
    )
    status: Status
    status_detail: Detail | None = Field(
        description="what the six statuses leave open: waiting_for_approval, waiting_for_silos (its federated job is "
        "not there yet) and paused (queued, nobody begins it), "
        "pausing and cancelling (running, until its worker lets go), rejected and expired (cancelled)"
    )
    queue_position: int | None = Field(
        description="among the caller's own queued jobs; null for a job that runs, is held or has ended"
    )
    model: str
    fine_tuned_model: str | None = Field(
        description="once it succeeded; null for a silo's job, whose adapter is the federated job's"
    )
    suffix: str | None
    organization_id: str
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None = None
    method: dict[str, Any]
    hyperparameters: JobHyperparameters
    seed: int
    metadata: dict[str, str]
    intended_use: str | None = Field(description="what the result is for, in the words of whoever asked")
    synthetic: Synthetic | None = Field(
        description="text that is sampled from the released model, as it was asked for; all of it is public"
    )
    audit: bool = Field(description="whether its worker audits the training before it reads a row")
    submitted_by: KeyName | None = Field(description="to a steward, and to the key itself; null to all others")
    decided_by: JobDecision | None = Field(
        description="the steward who approved or rejected the job; null while nobody has, or nobody must"
    )
    integrations: list[Any] | None = None
    error: JobError | None
    privacy: JobPrivacy
    progress: Progress
    receipt: ChargeReceipt
    quality: Quality | None = Field(
        default=None,
        description="of the result, by the validation file or a private measurement; null before it is there or "
        "without either",
    )
    finished_twin: str | None = Field(
        default=None, description="when submitted: a job that had succeeded with the same numbers already"
    )
    federated: bool = Field(description="whether it learns from several silos, or is one silo's part of such a job")
    parent: str | None = Field(
        description="of a silo's job: the federated job, where that is of the caller's tenant and submitted already"
    )
    silos: list[JobSilo] | None = Field(description="of a federated job; null for all others")
    rounds: JobRounds | None = Field(description="of a federated job, and of a silo's; null for all others")


class Approval(Body):
    """Why a job is approved; it becomes part of the ledger."""

    reason: Reason | None = None


class Rejection(Body):
    """Why a job is rejected; the submitter sees it."""

    reason: Reason


class Event(BaseModel):
    """Something that happened to a job."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str = Field(description="for people")
    type: Literal["message", "metrics"] = Field(description="metrics: steps were authorised")
    name: EventName = Field(description="what it is about, for programs")
    data: dict[str, Any] | None


class ReleasedCheckpoint(BaseModel):
    """A checkpoint in OpenAI's sense. None are released: what a job releases is its adapter."""

    id: str


def job_of(
    row: sa.Row[Any],
    viewer: Viewer,
    key: Ed25519PrivateKey,
    estimated_finish: int | None = None,
    part: FederatedPart | None = None,
) -> Job:
    """A row of domain.jobs.reading.of_tenant, with its part in a federated job where it has one. One that makes no job
    is shown as such, so that no list ends at it."""
    try:
        return _whole(row, viewer, key, estimated_finish, part)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        logger.error("ALARM: the row of job %s cannot be read (%s): the database was changed", row.id, type_name(error))
        return _damaged(row)


def result_name(row: sa.Row[Any]) -> str | None:
    """What a job's result is called as a model, once there is one; None for a silo's part of a federated job."""
    part = row.method["type"] == FEDERATED and row.silo_job is None
    return f"{RESULT_PREFIX}{row.model}:{row.suffix or ''}:{row.id}" if row.status == "succeeded" and not part else None


def _whole(
    row: sa.Row[Any],
    viewer: Viewer,
    key: Ed25519PrivateKey,
    estimated_finish: int | None,
    part: FederatedPart | None,
) -> Job:
    # Analysts of one budget see each other's jobs, and need not be told whose they are.
    known = viewer.may("steward") or viewer.key_id == row.created_by
    submitter = KeyName(id=row.created_by, name=row.submitter or "") if known else None
    method, done = row.method, [int(steps) for steps in row.steps_by_phase]
    total = sum(phase["steps"] for phase in row.plan["phases"]) if "phases" in row.plan else row.plan["steps"]
    numbers = method[method["type"]]["hyperparameters"]
    federated = method["type"] == FEDERATED
    return Job(
        id=row.id,
        created_at=int(row.created_at.timestamp()),
        finished_at=None if row.finished_at is None else int(row.finished_at.timestamp()),
        estimated_finish=None if federated else estimated_finish,  # a round takes as long as its slowest silo
        status=row.status,
        status_detail=row.status_detail,
        queue_position=row.queue_position,
        model=row.model,
        fine_tuned_model=result_name(row),
        suffix=row.suffix,
        organization_id=row.tenant_id,
        training_file=row.training_file,
        validation_file=row.validation_file,
        result_files=row.result_files or [],
        method=method,
        hyperparameters=JobHyperparameters(
            batch_size=numbers["batch_size"], steps=numbers["steps"], learning_rate=numbers["learning_rate"]
        ),
        seed=row.seed,
        metadata=row.metadata,
        intended_use=row.intended_use,
        synthetic=None if row.synthetic is None else Synthetic.model_validate(row.synthetic),
        audit=row.audit is True,
        submitted_by=submitter,
        decided_by=None if row.decision is None else JobDecision.model_validate(row.decision),
        error=None if row.error is None else _error_of(row.error, None if row.silo_job is not None else any(done)),
        privacy=privacy_of(row.privacy, method["type"], done, failed=row.status == "failed"),
        progress=Progress(step=sum(done), total_steps=total, fraction=round(sum(done) / total, 4)),
        receipt=ChargeReceipt(
            **row.receipt, signature=sign(key, row.receipt["budget"], row.receipt["seq"], row.receipt["hash"])
        ),
        quality=None if result_name(row) is None else quality_of(row.id, row.quality),
        federated=federated,
        parent=None if part is None else part.parent,
        silos=silos_of(part),
        rounds=rounds_of(part),
    )


def _damaged(row: sa.Row[Any]) -> Job:
    """What is sure of a job whose row cannot be read; no number of it is believed."""
    what = "The row of this job in the database is damaged: tell the operator. Its charges stand in the ledger."
    return Job(
        id=row.id,
        created_at=int(row.created_at.timestamp()),
        finished_at=None if row.finished_at is None else int(row.finished_at.timestamp()),
        estimated_finish=None,
        status=row.status,
        status_detail=None,
        queue_position=row.queue_position,
        model=row.model,
        fine_tuned_model=None,
        suffix=None,
        organization_id=row.tenant_id,
        training_file=row.training_file or "",
        validation_file=row.validation_file,
        result_files=row.result_files or [],
        method={"type": "unreadable", "unreadable": {}},
        hyperparameters=JobHyperparameters(batch_size=0, steps=0, learning_rate=0),
        seed=0,
        metadata={},
        intended_use=None,
        synthetic=None,
        audit=False,
        submitted_by=None,
        decided_by=None,
        error=_error_of({"code": "job_unreadable", "message": what}, None),
        privacy=JobPrivacy(
            budget="",
            unit="",
            epsilon=0,
            delta=0,
            noise_multiplier=0,
            sample_rate=0,
            steps_planned=0,
            steps_authorised=0,
            phases=[],
            budget_left_before=0,
            budget_left_after=0,
            guarantee=what,
        ),
        progress=Progress(step=0, total_steps=0, fraction=0),
        receipt=ChargeReceipt(budget="", seq=0, hash="", signature=""),
        federated=False,
        parent=None,
        silos=None,
        rounds=None,
    )


def _error_of(error: dict[str, Any], charged: bool | None) -> JobError:
    """charged: whether it failed after its first authorised step; None where that is not this job's to say."""
    whose = faults.fault(error["code"])
    price = [] if charged is None else [faults.CHARGED if charged else faults.FREE]
    return JobError(
        code=error["code"],
        message=error["message"],
        param=error.get("param"),
        fault=whose.of,
        hint=" ".join([*price, whose.hint]),
    )


def estimate_of(
    planned: Planned, facts: ModelFacts, population: int | None = None, cohort: int | None = None
) -> Estimate:
    """A plan that was not submitted, for a model of these facts."""
    return Estimate(
        model=planned.wanted.model,
        training_file=planned.wanted.training_file,
        validation_file=planned.wanted.validation_file,
        method=planned.draft.method,
        privacy=privacy_of(planned.privacy(), planned.draft.program.method, [0] * len(planned.draft.program.phases)),
        fits=planned.fits,
        jobs_that_fit=planned.jobs_that_fit,
        price_now=planned.price_now,
        largest_epsilon=planned.largest_epsilon,
        largest_share=planned.largest_share,
        memory_bytes=planned.memory,
        worker_memory_bytes=planned.room,
        fits_worker=planned.fits_worker,
        grant=_grant_use(planned.grant, planned.budget),
        needs_approval=planned.needs_approval,
        needs_intended_use=planned.needs_intended_use,
        finished_twin=planned.finished_twin,
        seconds=planned.seconds,
        rounds=planned_rounds(planned, facts),
        updates=planned_updates(planned, facts),
        advice=advice_of(planned, facts),
        synthetic_tokens=None if planned.wanted.synthetic is None else planned.wanted.synthetic.tokens,
        imagined=imagined(planned, population, cohort),
    )


def _grant_use(grant: HeldGrant | None, budget: Balance) -> GrantUse | None:
    if grant is None:
        return None
    account = grant.account
    of_epsilon = None if grant.share is not None else account
    return GrantUse(
        id=grant.id,
        epsilon=None if of_epsilon is None else of_epsilon.epsilon,
        epsilon_left=None if of_epsilon is None else budget_left(of_epsilon, of_epsilon.used),
        share=None if grant.share is None else float(grant.share),
        share_left=grant.share_left(budget),
        models=None if grant.models is None else list(grant.models),
        methods=None if grant.methods is None else list(grant.methods),
        most_steps=grant.most_steps,
    )


def event_of(row: sa.Row[Any], phases: int = 1) -> Event:
    """A row of domain.jobs.events.numbered, of a job with so many phases: where there are several, steps say whose they
    are."""
    named = (row.data or {}).get("phase") if phases > 1 else None
    return Event(
        id=f"{event_prefix(row.job_id)}{row.number}",
        created_at=int(row.created_at.timestamp()),
        level=row.level,
        message=row.message if named is None else f"Phase {named}: {row.message[0].lower()}{row.message[1:]}",
        type=row.type,
        name=row.name if row.name in get_args(EventName) else "job.noted",
        data=row.data,
    )


def event_prefix(job_id: str) -> str:
    """What the ids of a job's events begin with."""
    return f"ftevent-{job_id.removeprefix('ftjob-')}-"
