"""From a request and public values to a plan and its price. Nothing here looks at a row, and nothing is charged."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from pydantic import BaseModel, ValidationError

from domain.kit.refusals import Invalid
from domain.models.allow_list import BaseModelFacts
from dpcore.terms import accounting
from dpcore.terms.errors import FieldError
from dpcore.terms.methods import DEFAULT_METHOD, UnknownMethod, get_method
from dpcore.terms.plan import Plan
from dpcore.terms.strict import expected
from dpcore.terms.tasks import TaskKind
from ledger.budgets import Balance


@dataclass(frozen=True)
class Dataset:
    """The public values of a private file that a plan rests on."""

    task: TaskKind
    declared_size: int
    """In the budget's units."""
    labels: int
    """0 where the task has none."""
    max_length: int


@dataclass(frozen=True)
class Draft:
    """A job that could be submitted: every number resolved, and what it would take of its budget."""

    method: dict[str, Any]
    """{"type": name, name: {options, "hyperparameters": {...}}}"""
    plan: Plan
    epsilon: float
    """What this job alone would take of the empty budget: what was asked, or a hair less."""
    cost: accounting.Curve
    memory: int
    """Bytes that training needs, by formula."""


def draft(
    *,
    method: str,
    options: Mapping[str, Any],
    hyperparameters: Mapping[str, Any],
    epsilon: float | None,
    delta: float | None,
    seed: int,
    model: BaseModelFacts,
    dataset: Dataset,
    budget: Balance,
) -> Draft:
    """Resolve every default and calibrate the noise with the budget's own rule. Raises Invalid, naming the field."""
    name = DEFAULT_METHOD if method == "supervised" else method
    try:
        spec = get_method(name)
    except UnknownMethod as error:
        raise Invalid(str(error), code="unknown_method", param="method.type") from None
    wanted = _parsed(spec.Options, options, f"method.{method}")
    asked = _parsed(spec.Request, hyperparameters, f"method.{method}.hyperparameters")
    _require_fitting(model, dataset.task)
    try:
        spec.check(wanted, model.facts, dataset.task)
    except FieldError as error:
        raise Invalid(str(error), code="invalid_request", param=f"method.{method}.{error.field}") from None
    except ValueError as error:
        raise Invalid(str(error), code="unsupported_method", param="method.type") from None
    size = dataset.declared_size
    target = _epsilon(epsilon, budget)
    if delta is not None and delta < budget.delta:
        raise Invalid(
            f"this budget's guarantee has delta {budget.delta:g}, not one as small as {delta:g}; leave "
            "privacy.delta out or use a budget with a smaller one",
            code="delta_too_small",
            param="privacy.delta",
        )
    try:
        resolved = spec.resolve(asked, task=dataset.task, declared_size=size, epsilon=target, facts=model.facts)
    except FieldError as error:
        raise Invalid(str(error), code="invalid_request", param=f"method.{method}.{error.field}") from None
    (phase,) = spec.phases(resolved, declared_size=size)
    try:
        sigma = accounting.calibrate(target, budget.delta, budget.filter, phase.sample_rate, phase.steps)
    except accounting.DoesNotFit as error:
        raise Invalid(
            str(error), code="epsilon_too_small", param="privacy.epsilon", smallest_epsilon=error.smallest_epsilon
        ) from None
    max_length = min(dataset.max_length, model.facts.max_positions)
    cost = accounting.cost(accounting.curve(sigma, phase.sample_rate, budget.filter.orders), phase.steps)
    chosen = {**wanted.model_dump(mode="json"), "hyperparameters": resolved.model_dump(mode="json")}
    plan = spec.plan(
        wanted,
        resolved,
        declared_size=size,
        noise_multiplier=sigma,
        max_length=max_length,
        seed=seed,
        unit=budget.unit,
    )
    return Draft(
        method={"type": name, name: chosen},
        plan=plan,
        epsilon=accounting.epsilon_alone(cost, budget.delta, budget.filter),
        cost=cost,
        memory=spec.memory(wanted, model.facts, max_length=max_length, labels=dataset.labels, task=dataset.task),
    )


def largest_epsilon(draft: Draft, budget: Balance) -> float:
    """The largest epsilon at which a job of this shape would still fit, rounded down to 4 decimals; 0 if none does."""
    most = accounting.largest_epsilon_that_fits(
        budget.cap, budget.used, budget.delta, budget.filter, draft.plan.sample_rate, draft.plan.steps
    )
    return int(most * 1e4) / 1e4


def fits(draft: Draft, budget: Balance) -> bool:
    """Whether the budget has room now. The database decides again when the job is submitted."""
    return accounting.fits(budget.cap, budget.used, draft.cost)


def guarantee(plan: Plan, budget: Balance, epsilon: float) -> str:
    """What the job promises, in a sentence."""
    return (
        f"({rounded_up(epsilon):g}, {budget.delta:g})-differentially private for each {budget.unit} (add or remove "
        f"one), within the budget's ({budget.epsilon:g}, {budget.delta:g}) for everything that all its jobs release "
        f"together: at most {plan.steps} steps, each on a Poisson draw at rate {plan.sample_rate:.4g} with noise of "
        f"{plan.noise_multiplier:.4g} times the clipping norm. Wall-clock time is outside the guarantee."
    )


def rounded_up(epsilon: float) -> float:
    """An epsilon to show, never less than it is: 3 decimals."""
    return ceil(epsilon * 1000) / 1000


def _require_fitting(model: BaseModelFacts, task: TaskKind) -> None:
    """Raises Invalid when this model cannot be trained on files of this task, whatever the method."""
    if task in model.facts.tasks:
        return
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
