"""The job that a budget made together with a file is weighted for."""

from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import DEFAULT_METHOD, get_method
from dpcore.terms.tasks import DEFAULT_KIND, TaskKind
from ledger.budgets import Reference


def reference_job(declared_size: int, epsilon: float, facts: ModelFacts, task: TaskKind = DEFAULT_KIND) -> Reference:
    """The default method's default job on a file of this size: what a budget made with the file is weighted for."""
    method = get_method(DEFAULT_METHOD)
    options = method.Options()
    hyperparameters = method.resolve(
        method.Request(), options, task=task, declared_size=declared_size, epsilon=epsilon, facts=facts
    )
    (phase,) = method.phases(options, hyperparameters, declared_size=declared_size)
    return Reference(phase.mechanism.sample_rate, phase.steps)
