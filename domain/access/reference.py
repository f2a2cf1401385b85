"""The job that a budget made together with a file is weighted for."""

from typing import Any

from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import get_method
from dpcore.terms.presets import expanded
from dpcore.terms.tasks import DEFAULT_KIND, TaskKind
from ledger.budgets import Reference


def reference_job(
    declared_size: int, epsilon: float, facts: ModelFacts, task: TaskKind = DEFAULT_KIND, labels: int = 2
) -> Reference:
    """The job of a caller who names nothing but a file of this size: what a budget made with the file is weighted
    for."""
    public: dict[str, Any] = {"task": task, "declared_size": declared_size, "epsilon": epsilon, "facts": facts}
    name, chosen, numbers = expanded({}, {}, labels=labels, **public)
    method = get_method(name)
    options, request = method.Options.model_validate(chosen), method.Request.model_validate(numbers)
    hyperparameters = method.resolve(request, options, **public)
    (phase,) = method.phases(options, hyperparameters, declared_size=declared_size)
    return Reference(phase.mechanism.sample_rate, phase.steps)
