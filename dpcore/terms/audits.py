"""Which training can be audited on made-up records, and how: what is said of a job's audit before there is one."""

from dpcore.terms.tasks import TaskKind, get_kind

CANARIES = 240
"""Made-up units of a job's audit."""
CONFIDENCE = 0.999
"""With which all bounds of a job's audit hold together: one that finds a fault ends its job."""
_LEAST, _MOST = 0.05, 50.0


def subject_epsilon(epsilon: float) -> float:
    """The price of the audited run for a job of this epsilon: the same, as far as audits are made for it."""
    return min(max(epsilon, _LEAST), _MOST)


def require_auditable(method: str, task: TaskKind) -> None:
    """Raises ValueError, saying why, for training that no canaries are made for."""
    if get_kind(task).of_pictures:
        raise ValueError("no canaries are made of pictures")
    if method == "federated-lora":
        raise ValueError(
            "a federated job's messages are audited on the machine of each silo: tacit privacy-audit --how round"
        )
