"""What an exported folder belongs to, as its tacit.json says it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from dpcore.terms.tasks import TaskKind

ABOUT = "tacit.json"


@dataclass(frozen=True)
class About:
    """What an export belongs to; all of it public. base_model: the service's name for it; the sha256 is of its weights.
    repository, commit: where the hub has it, if it came from there. labels: empty for a language model."""

    base_model: str
    base_model_sha256: str
    method: str
    task: TaskKind
    labels: tuple[str, ...]
    max_length: int
    repository: str | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a path as the base model's name: it means nothing elsewhere."""
        if self.base_model.startswith((".", "/", "~")):  # what lies in the working folder says nothing about a name
            raise ValueError(f"the base model needs a public name, not the path {self.base_model!r}")

    @property
    def loads_by(self) -> str:
        """What a reader who has the base model where it is published loads it by."""
        return self.repository or self.base_model


def write_about(folder: Path, about: About) -> None:
    """Write tacit.json."""
    (folder / ABOUT).write_text(json.dumps(asdict(about), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_about(folder: str | Path) -> About:
    """What an exported folder belongs to. Raises OSError or ValueError for a folder that is none."""
    values = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
    return About(**values | {"labels": tuple(values["labels"])})
