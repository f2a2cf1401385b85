"""From a request and public values to a plan and its price. Nothing here looks at a row, and nothing is charged."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Any

from pydantic import BaseModel, ValidationError

from domain.jobs.measuring import measurement
from domain.kit.refusals import Invalid
from domain.models.allow_list import BaseModelFacts
from dpcore.terms import accounting
from dpcore.terms.errors import FieldError
from dpcore.terms.measuring import trained_on
from dpcore.terms.methods import UnknownMethod, get_method
from dpcore.terms.picture_facts import rows_bytes
from dpcore.terms.presets import UNNAMED, expanded
from dpcore.terms.program import HeadStart, Phase, Program, of_users, parts, scaled
from dpcore.terms.strict import expected
from dpcore.terms.tasks import TaskKind, get_kind
from ledger.budgets import Balance

FEDERATED = "federated-lora"


@dataclass(frozen=True)
class Dataset:
    """The public values of a private file that a plan rests on."""

    task: TaskKind
    declared_size: int
    """In the budget's units."""
    labels: int
    """0 where the task has none."""
    max_length: int
    words: bool = False
    """Whether its labels are words that a head can start from."""


@dataclass(frozen=True)
class Draft:
    """A job that could be submitted: every number resolved, and what it would take of its budget."""

    method: dict[str, Any]
    """{"type": name, name: {options, "hyperparameters": {...}}}"""
    program: Program
    epsilon: float
    """What this job alone would take of the empty budget: what was asked, or a hair less."""
    share: float | None
    """Of the budget's cap at its main order, rounded up; None where a limit was lowered until nothing fits there."""
    cost: accounting.Curve
    memory: int
    """Bytes that training takes, by the method's own formula."""
    rows: int = 0
    """Bytes of records that take much of them, as pictures do: a worker holds them all."""
    """Bytes that training needs, by formula."""


def draft(
    *,
    method: str,
    options: Mapping[str, Any],
    hyperparameters: Mapping[str, Any],
    epochs: float | None = None,
    epsilon: float | None,
    share: float | None = None,
    delta: float | None,
    measure: float | None = None,
    seed: int,
    model: BaseModelFacts,
    dataset: Dataset,
    budget: Balance,
) -> Draft:
    """Resolve every default, by a preset where no method is named, and calibrate the noise of all phases together with
    the budget's own rule: to an epsilon or to a share. epochs: in place of steps. measure: the part of the budget at
    which the result is measured on what is held out, within the job's epsilon or share. Raises Invalid, naming the
    field."""
    size = trained_on(dataset.declared_size, budget.held_out)
    if share is None:
        target = _epsilon(epsilon, budget)
    else:
        target = accounting.epsilon_at_share(share, budget.cap, budget.delta, budget.filter)
    public: dict[str, Any] = {"task": dataset.task, "declared_size": size, "epsilon": target, "facts": model.facts}
    name = method
    if method == UNNAMED:
        try:
            name, options, hyperparameters = expanded(options, hyperparameters, labels=dataset.labels, **public)
        except FieldError as error:
            raise Invalid(str(error), code="invalid_request", param=f"method.{method}.{error.field}") from None
    try:
        spec = get_method(name)
    except UnknownMethod as error:
        raise Invalid(str(error), code="unknown_method", param="method.type") from None
    if budget.held_out and name == FEDERATED:
        raise Invalid(
            "a federated job cannot learn from the file of a budget that holds units out; use a file of another budget",
            code="held_out_unsupported",
            param="method.type",
        )
    wanted = _parsed(spec.Options, options, f"method.{method}")
    asked = _parsed(spec.Request, hyperparameters, f"method.{method}.hyperparameters")
    _require_fitting(model, dataset.task)
    try:
        spec.check(wanted, model.facts, dataset.task)
    except FieldError as error:
        raise Invalid(str(error), code="invalid_request", param=f"method.{method}.{error.field}") from None
    except ValueError as error:
        raise Invalid(str(error), code="unsupported_method", param="method.type") from None
    if delta is not None and delta < budget.delta:
        raise Invalid(
            f"this budget's guarantee has delta {budget.delta:g}, not one as small as {delta:g}; leave "
            "privacy.delta out or use a budget with a smaller one",
            code="delta_too_small",
            param="privacy.delta",
        )
    try:
        resolved = spec.resolve(asked, wanted, **public)
        if epochs is not None:
            steps = max(1, round(epochs * size / resolved.batch_size))
            place = f"method.{method}.hyperparameters"
            asked = _parsed(spec.Request, {**hyperparameters, "steps": steps}, place)
            resolved = spec.resolve(asked, wanted, **public)
    except FieldError as error:
        apart = f" (of {dataset.declared_size} declared, what is held out apart)" if budget.held_out else ""
        raise Invalid(f"{error}{apart}", code="invalid_request", param=f"method.{method}.{error.field}") from None
    started = {"head": _head(asked.head, dataset, f"method.{method}"), "views": _views(asked.views, model, method)}
    resolved = resolved.model_copy(update=started)
    phases = spec.phases(wanted, resolved, declared_size=size)
    if of_users(phases) and budget.unit != "user":
        raise Invalid(
            f"the method {name} protects users, each with all of its records, and the budget of this file protects "
            f"single {budget.unit}s; use a file under a budget whose unit is user",
            code="unsupported_unit",
            param="method.type",
        )
    last = None
    if measure is not None:
        last = measurement(
            measure,
            target,
            share,
            phases[-1].trains,
            task=dataset.task,
            size=dataset.declared_size,
            model=model,
            budget=budget,
        )
    phases = scaled(phases, _noise(target, share, budget, parts(phases), measure, last))
    most = model.facts.max_positions
    # All pictures are of one size to a model, whatever size they are kept at.
    max_length = most if model.facts.pictures else min(dataset.max_length, most)
    chosen = {**wanted.model_dump(mode="json"), "hyperparameters": resolved.model_dump(mode="json")}
    program = Program(
        method=name,
        options=wanted.model_dump(mode="json"),
        unit="user" if budget.unit == "user" else "record",
        max_length=max_length,
        seed=seed,
        head=resolved.head,
        views=resolved.views,
        phases=phases if last is None else (*phases, last),
    )
    cost = program.cost(budget.filter.orders)
    return Draft(
        method={"type": name, name: chosen},
        program=program,
        epsilon=accounting.epsilon_alone(cost, budget.delta, budget.filter),
        share=budget.share_of(cost),
        cost=cost,
        memory=spec.memory(wanted, model.facts, max_length=max_length, labels=dataset.labels, task=dataset.task),
        rows=0 if model.facts.side is None else rows_bytes(dataset.declared_size, model.facts.side, dataset.max_length),
    )


def _head(asked: str, dataset: Dataset, place: str) -> HeadStart:
    """How the head starts. Raises Invalid where words are asked for and the labels are none."""
    if asked == "words" and not dataset.words:
        field = f"{place}.hyperparameters.head"
        raise Invalid(
            f"{field}: only a classifier of single texts whose labels are words can start from them; use random",
            code="invalid_request",
            param=field,
        )
    return "words" if dataset.words and asked != "random" else "random"


def _views(asked: int, model: BaseModelFacts, method: str) -> int:
    """Raises Invalid for several views of what is no picture."""
    if asked > 1 and not model.facts.pictures:
        field = f"method.{method}.hyperparameters.views"
        raise Invalid(f"{field}: only pictures have several views; leave it out", code="invalid_request", param=field)
    return asked


def _noise(
    epsilon: float,
    share: float | None,
    budget: Balance,
    job: accounting.Parts,
    measure: float | None,
    last: Phase | None,
) -> float:
    """What the noise of the phases that train is multiplied by; the measurement, if any, has its own. Raises Invalid
    with the smallest epsilon or share that works."""
    try:
        if share is not None:
            rest = float(Decimal(str(share)) - Decimal(str(measure or 0)))
            return accounting.calibrate_share(rest, budget.cap, budget.filter, job)
        beside = None if last is None else last.cost(budget.filter.orders)
        return accounting.calibrate(epsilon, budget.delta, budget.filter, job, beside)
    except accounting.DoesNotFit as error:
        if share is None:
            raise Invalid(
                str(error), code="epsilon_too_small", param="privacy.epsilon", smallest_epsilon=error.smallest
            ) from None
        # None of all shares: a limit was lowered, or so many steps take more than the main order has.
        least = None if error.smallest is None else error.smallest + (measure or 0)
        smallest = least if least is not None and least <= 1 else None
        words = str(error) if smallest is not None else "this job cannot be had for any share of this budget"
        raise Invalid(words, code="share_too_small", param="privacy.share", smallest_share=smallest) from None


def largest_epsilon(draft: Draft, budget: Balance) -> float:
    """The largest epsilon at which a job of this shape would still fit, rounded down to 4 decimals; 0 if none does."""
    most = accounting.largest_epsilon_that_fits(
        *(budget.cap, budget.used, budget.delta, budget.filter, parts(draft.program.training)),
        _beside(draft.program, budget),
    )
    return int(most * 1e4) / 1e4


def largest_share(draft: Draft, budget: Balance, at_most: float = 1.0) -> float:
    """The largest share of the budget, at most this one, at which a job of this shape would still fit at the main
    order; 0 if none does."""
    return accounting.largest_share_that_fits(
        *(budget.cap, budget.used, budget.filter, parts(draft.program.training), at_most),
        _beside(draft.program, budget),
    )


def _beside(program: Program, budget: Balance) -> accounting.Curve | None:
    """What the measurement takes, whose noise is its own."""
    last = program.measurement
    return None if last is None else last.cost(budget.filter.orders)


def at_main_order(draft: Draft, budget: Balance) -> bool:
    """Whether the main order has room for the job now, where shares add up."""
    place = budget.filter.main
    return budget.used[place] + draft.cost[place] <= budget.cap[place]


def fits(draft: Draft, budget: Balance) -> bool:
    """Whether the budget has room now. The database decides again when the job is submitted."""
    return accounting.fits(budget.cap, budget.used, draft.cost)


def guarantee(program: Program, budget: Balance, epsilon: float) -> str:
    """What the job promises, in a sentence."""
    phases = "; then ".join(phase.mechanism.sentence(phase.steps) for phase in program.phases)
    return (
        f"({rounded_up(epsilon):g}, {budget.delta:g})-differentially private for each {budget.unit} (add or remove "
        f"one), within the budget's ({budget.epsilon:g}, {budget.delta:g}) for everything that all its jobs release "
        f"together: {phases}. Wall-clock time is outside the guarantee."
    )


def prices(program: Program, budget: Balance) -> list[dict[str, Any]]:
    """Each phase with its mechanism, its steps and what it would cost alone: epsilons do not add up, shares do."""
    found = []
    for phase in program.phases:
        cost = phase.cost(budget.filter.orders)
        found.append(
            {
                "name": phase.name,
                "trains": "nothing" if phase.measures else phase.trains,
                "mechanism": phase.mechanism.kind,
                "indivisible": phase.mechanism.indivisible,
                "sample_rate": phase.mechanism.sample_rate,
                "noise_multiplier": phase.mechanism.noise_multiplier,
                "steps": phase.steps,
                "epsilon": accounting.epsilon_alone(cost, budget.delta, budget.filter),
                "share": budget.share_of(cost),
            }
        )
    return found


def rounded_up(epsilon: float) -> float:
    """An epsilon to show, never less than it is: 3 decimals."""
    return ceil(epsilon * 1000) / 1000


def _require_fitting(model: BaseModelFacts, task: TaskKind) -> None:
    """Raises Invalid when this model cannot be trained on files of this task, whatever the method."""
    if task in model.facts.tasks:
        return
    if get_kind(task).of_pictures != model.facts.pictures:
        holds, does = ("pictures", "reads texts") if get_kind(task).of_pictures else ("texts", "sees pictures")
        raise Invalid(
            f"the training file holds {holds}, and {model.name} {does}; GET /v1/models says which models fit {task}",
            code="unsupported_task",
            param="model",
        )
    if not model.facts.causal_lm:
        raise Invalid(
            f"the training file is for the task {task}, which needs a causal language model, and {model.name} is none",
            code="unsupported_task",
            param="model",
        )
    raise Invalid(
        f"the training file holds chats, and {model.name}'s tokenizer has no chat template; use a model that has one, "
        "or upload the file with the task completion",
        code="no_chat_template",
        param="model",
    )


def _epsilon(asked: float | None, budget: Balance) -> float:
    """What was asked; without a wish, all of a budget that nothing has touched."""
    if asked is not None:
        return asked
    if any(budget.used):
        raise Invalid(
            "privacy.epsilon is needed: only for a budget that no job has used yet it defaults to all of it",
            code="invalid_request",
            param="privacy.epsilon",
            budget_left=max(0.0, budget.epsilon - budget.epsilon_of(budget.used)),
        )
    return budget.epsilon


def _parsed(schema: type[BaseModel], values: Mapping[str, Any], place: str) -> Any:
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        wrong = details[0]["loc"][:1]
        field = ".".join([place, *(str(part) for part in wrong)])
        known = ", ".join(schema.model_fields)
        words = expected([d for d in details if d["loc"][:1] == wrong])
        if details[0]["type"] == "extra_forbidden":
            words = f"unknown field; there are: {known}"
        raise Invalid(f"{field}: {words}", code="invalid_request", param=field) from None
