"""What a statement says, as it is published: null stands for `not recorded`, and nothing is made up in its place.

Costs are in units of 1e-12 nat at each Renyi order, shares are parts of the budget's cap at its main order, times are
UTC and to the minute.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

JOB_FORMAT: Literal["tacit.statement.job.v1"] = "tacit.statement.job.v1"
BUDGET_FORMAT: Literal["tacit.statement.budget.v1"] = "tacit.statement.budget.v1"


class Stated(BaseModel):
    """A part of a statement: unknown fields are refused, and no number is one that JSON has no writing for."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StatedWords(Stated):
    """A heading, and what is said under it."""

    title: str
    text: str


class StatedPoint(Stated):
    """Something that whoever claims privacy must state, and where this statement does."""

    number: int
    what: str
    stands: Literal["stated", "in words", "not recorded", "does not apply"]
    where: str = Field(description="the part of this statement that says it")
    note: str


class OddsPoint(Stated):
    """Of a trade-off curve, both as parts of one."""

    innocent: float = Field(description="of those outside the data, who are accused wrongly")
    found: float = Field(description="of those in the data, who are found at most; rounded up")


class StatedOdds(Stated):
    """What an attacker reaches at most, from a trade-off curve."""

    basis: str = Field(description="where the curve comes from")
    curve: list[OddsPoint]
    found_at_one_percent: float
    found_at_five_percent: float
    best_accuracy: float = Field(description="of guesses about people of whom half are in the data, at most")
    by_epsilon_and_delta: float = Field(description="found at one percent, if only epsilon and delta were known")
    sentence: str


class StatedFilter(Stated):
    """At which Renyi orders a budget is held: with the delta, all that others need to convert."""

    orders: list[int]
    weights: list[str] = Field(description="of delta at each order, as fractions; they add up to one")
    main_order: int


class StatedClaim(Stated):
    """What a job promises by itself."""

    epsilon: float | None = Field(description="of what was charged, never less; null where no order holds it any more")
    epsilon_reserved: float | None = Field(description="the most that it could have been, as reserved")
    epsilon_by_losses: float | None = Field(
        description="by the privacy loss distribution of this job alone, which holds only where its plan was fixed "
        "before any other result was seen"
    )
    delta: float
    share: float | None = Field(description="of the budget's cap at its main order, rounded up")
    variant: str
    relation: str
    cost: list[int] = Field(description="charged at each of the budget's orders")
    charged_for: str = Field(description="which steps the cost is of")
    accountant: str
    sentence: str
    caution: str


class StatedUnit(Stated):
    """Who is protected, and against what."""

    unit: str
    relation: str
    most_records_per_user: int | None
    sentence: str
    bound: str
    covers: str
    leaves_out: str
    why: str | None = Field(description="why no larger unit was chosen; null: nobody wrote it down")


class StatedPhase(Stated):
    """A part of a job with one mechanism."""

    name: str
    trains: str
    mechanism: str
    noise_multiplier: float = Field(description="deviation of the noise over the sensitivity")
    sample_rate: float
    steps_planned: int
    steps_authorised: int
    steps_charged: int
    clipping: str
    clip_norm: float = Field(description="bound on the L2 norm of what a unit adds; of adaptive clipping the first")
    expected_batch: int = Field(description="public divisor of the noised sum")
    sensitivity: str
    step_cost: list[int]
    epsilon: float | None = Field(description="of what was charged for this phase alone; epsilons do not add up")


class StatedRelease(Stated):
    """A file that became visible."""

    kind: str
    file: str
    filename: str
    sha256: str
    bytes: int
    at: str
    deleted: bool
    contents: dict[str, str] | None = Field(
        description="of an adapter: the sha256 of each file in it; null: not recorded, or no archive"
    )


class StatedQuality(Stated):
    """How good the result is."""

    metric: str
    value: float
    evaluated: int | None
    standard_error: float | None
    interval: tuple[float, float] | None = Field(description="value -+ 1.96 standard errors")
    baseline: float | None
    source: str
    by_group: str | None = Field(description="what is known of small groups; null: nothing")


class StatedDomain(Stated):
    """What is public of the data, and by whose word."""

    file: str | None
    task: str | None
    labels: list[str] | None
    labels_published: bool | None = Field(
        description="true: as found in the file, by the steward's decision; false: named beforehand; null: not recorded"
    )
    declared_size: int | None
    size_published: bool | None = Field(
        description="true: the number of its units, by the steward's decision; false: named beforehand"
    )
    max_length: int | None = Field(description="tokens of a text; null for pictures")
    resolution: int | None = Field(description="pixels of a picture's shorter side, at most; null for texts")
    held_out: float
    sentence: str


class StatedDecision(Stated):
    """Who agreed to a job, or refused it."""

    decision: str
    by: str
    reason: str | None
    at: str


class StatedPurpose(Stated):
    """Who asked for a job, and for what."""

    asked_by: str | None = Field(description="null: not recorded, or not for whoever asked for this statement")
    intended_use: str | None
    suffix: str | None
    metadata: dict[str, str]
    approval: StatedDecision | None
    sentence: str


class StatedBalance(Stated):
    """A budget at one moment."""

    entry: int = Field(description="number of the last entry that counts; 0: none")
    share_used: float | None
    epsilon_used: float | None = Field(description="that spent and reserved together would take of the empty budget")


class StatedAccount(Stated):
    """The budget that a job is charged to."""

    budget: str
    epsilon: float = Field(description="the limit now")
    epsilon_claim: float = Field(description="the highest limit ever set: what the guarantee speaks of")
    delta: float
    filter: StatedFilter
    before: StatedBalance
    after: StatedBalance
    frozen: bool
    frozen_reason: str | None
    within: bool = Field(description="whether what is spent and reserved is within the claim at some order")
    sentence: str


class StatedVersions(Stated):
    """What it was made with."""

    made_with: dict[str, str] | None
    stated_with: dict[str, str]
    base_model: str
    base_model_sha256: str | None
    base_model_source: str | None
    method: str


class StatedDates(Stated):
    """When."""

    submitted: str
    charged: str
    settled: str | None
    released: str | None


class StatedEntry(Stated):
    """Where something stands in the ledger."""

    seq: int
    kind: str
    hash: str
    at: str


class StatedStanding(Stated):
    """What has become of a job."""

    status: str
    detail: str | None
    released: bool
    sentence: str


class StatedAudit(Stated):
    """What an audit of the training found before the job's first row. Bounds on epsilon from below; null: not to be had
    for such training."""

    subject: str
    canaries: int
    confidence: float
    delta: float
    asked: float
    claim: float
    direct: float
    gaussian: float | None
    fitted: float | None
    sentence: str


class JobStatement(Stated):
    """What is claimed of one job."""

    format: Literal["tacit.statement.job.v1"] = JOB_FORMAT
    issued_at: str
    job: str
    tenant: str
    reservation: str
    repriced: bool = Field(description="whether its budget was priced again since: then costs are today's prices")
    summary: list[str]
    standing: StatedStanding
    claim: StatedClaim
    unit: StatedUnit
    phases: list[StatedPhase]
    odds: StatedOdds | None = Field(description="of this job alone; null: not recorded")
    budget_odds: StatedOdds | None = Field(description="of all that the budget may release; null: no promise holds")
    audit: StatedAudit | None = Field(default=None, description="null: none was made, or none is recorded")
    releases: list[StatedRelease]
    quality: StatedQuality | None
    synthetic: str
    domain: StatedDomain
    purpose: StatedPurpose
    account: StatedAccount
    versions: StatedVersions
    dates: StatedDates
    entries: list[StatedEntry]
    limits: list[StatedWords]
    trust: list[StatedWords]
    handling: list[StatedWords]
    points: list[StatedPoint]


class ReleasedResult(Stated):
    """One of a dossier's releases, with the sha256 of what came out."""

    kind: str
    file: str
    sha256: str
    at: str
    deleted: bool


class DossierJob(Stated):
    """What one job took of a budget."""

    job: str
    status: str
    model: str
    method: str
    intended_use: str | None
    asked_by: str | None
    approval: StatedDecision | None
    charged_at: str
    settled_at: str | None
    cost: list[int]
    share: float | None
    epsilon: float | None
    held: bool = Field(description="whether it is only reserved yet, and may cost less in the end")
    part: bool = Field(description="whether it is a silo of a federated job: noised messages of it left")
    releases: list[ReleasedResult]


class DossierDecision(Stated):
    """A decision about a budget, as its ledger has it."""

    seq: int
    kind: str
    at: str
    by: str | None
    said: dict[str, str]


class DossierFile(Stated):
    """A private file of a budget, by what is public of it."""

    file: str
    task: str
    declared_size: int
    size_published: bool | None
    labels: list[str] | None
    labels_published: bool | None
    uploaded: str
    deleted: bool


class BudgetStatement(Stated):
    """All that was ever released about one protected population, in order, with what is left."""

    format: Literal["tacit.statement.budget.v1"] = BUDGET_FORMAT
    issued_at: str
    budget: str
    name: str
    tenant: str
    opened: str
    summary: list[str]
    epsilon: float
    epsilon_claim: float
    delta: float
    filter: StatedFilter
    unit: StatedUnit
    cap: list[int] = Field(description="at the limit now")
    spent: list[int]
    reserved: list[int]
    share_used: float | None
    share_left: float
    epsilon_used: float | None
    frozen: bool
    frozen_reason: str | None
    within: bool
    odds: StatedOdds | None
    jobs: list[DossierJob]
    decisions: list[DossierDecision]
    files: list[DossierFile]
    head: StatedEntry
    stated_with: dict[str, str]
    limits: list[StatedWords]
    trust: list[StatedWords]
    handling: list[StatedWords]


def schema(which: type[JobStatement] | type[BudgetStatement]) -> dict[str, Any]:
    """The JSON schema that statements are published against."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | which.model_json_schema()
