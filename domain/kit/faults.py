"""Whose fault a failed job is and what helps, by the code of its error: constants, nothing of the run is in them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Fault:
    of: Literal["user", "service"]
    """Who can do something about it."""
    hint: str
    """Without a word on the price: what was charged is the ledger's to say, not the code's."""


CHARGED = "The whole reservation is charged, because a failure can be something that the rows did."
FREE = "Nothing was charged."
_FAULTS = {
    "training_failed": Fault(
        "service",
        "Before you submit it again, ask the operator whether the worker is sound: its log has the cause.",
    ),
    "out_of_memory": Fault(
        "user",
        "Take a smaller model or a method that trains less (lora), or ask the operator for a larger worker.",
    ),
    "model_unavailable": Fault(
        "service",
        "Ask the operator to give the workers this model, or choose another.",
    ),
    "worker_lost": Fault("service", "Ask the operator why the workers went away, then submit the job again."),
    "time_limit": Fault(
        "user",
        "Take fewer steps or a smaller model: an estimate says how long a job takes. The operator sets the limit.",
    ),
    "not_trainable": Fault("user", "Choose another method or model, or ask the steward about the file."),
    "cannot_sample": Fault("user", "Name other prompts, or ask for fewer new tokens, then submit the job again."),
    "audit_failed": Fault(
        "service",
        "Tell the operator at once, and let nobody train on this worker: `tacit privacy-audit` there says more.",
    ),
    "file_binding_broken": Fault(
        "service",
        "Nothing was read. Tell the operator at once: somebody has changed what the database or the blob store holds "
        "of the file.",
    ),
    "plan_mismatch": Fault("service", "Ask the operator whether API and workers are of one release; submit it again."),
}
_OTHER = Fault("service", "Submit it again; if it fails again, tell the operator.")


def fault(code: str) -> Fault:
    """What is known about a code of `job.error`."""
    return _FAULTS.get(code, _OTHER)
