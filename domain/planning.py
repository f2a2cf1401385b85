"""From a request and public values to a plan and its price. Nothing here looks at a row, and nothing is charged."""

from dpcore.spec.facts import ModelFacts
from dpcore.spec.methods import DEFAULT_METHOD, get_method
from ledger.budgets import Reference


def reference_job(declared_size: int, epsilon: float, facts: ModelFacts) -> Reference:
    """The default method's default job on a file of this size: what a budget made with the file is weighted for."""
    method = get_method(DEFAULT_METHOD)
    hyperparameters = method.resolve(method.Request(), declared_size=declared_size, epsilon=epsilon, facts=facts)
    (phase,) = method.phases(hyperparameters, declared_size=declared_size)
    return Reference(phase.sample_rate, phase.steps)
