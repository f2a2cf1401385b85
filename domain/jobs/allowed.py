"""What a grant steers: the models and methods of its jobs, and how long they may be. No privacy limit: the ledger holds
those."""

from domain.access.grants import HeldGrant
from domain.kit.refusals import Forbidden
from dpcore.terms.program import Program


def require_allowed(grant: HeldGrant | None, model: str, program: Program) -> None:
    """Raises Forbidden, naming the field and what the grant allows. A steward's job has no grant."""
    if grant is None:
        return
    if grant.models is not None and model not in grant.models:
        raise _outside(f"not for the model {model}, but for: {', '.join(grant.models)}", "model", grant)
    if grant.methods is not None and program.method not in grant.methods:
        raise _outside(f"not for the method {program.method}, but for: {', '.join(grant.methods)}", "method", grant)
    steps = sum(phase.steps for phase in program.training)
    if grant.most_steps is not None and steps > grant.most_steps:
        raise _outside(f"for jobs of at most {grant.most_steps} steps; this one has {steps}", "steps", grant)


def _outside(what: str, field: str, grant: HeldGrant) -> Forbidden:
    param = {"method": "method.type", "steps": "hyperparameters.steps"}.get(field, field)
    return Forbidden(f"the grant is {what}", code="not_in_grant", param=param, grant=grant.id)
