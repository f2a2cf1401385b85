"""What methods share: the numbers a caller may ask for, their defaults, and the phase that they make.

A method with more phases, or with numbers of its own, brings its own of each.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from dpcore.terms.errors import FieldError
from dpcore.terms.facts import ModelFacts
from dpcore.terms.mechanisms import subsampled
from dpcore.terms.program import MOST_VIEWS, Clipping, HeadStart, Optimizer, Phase
from dpcore.terms.strict import Listed, StrictModel
from dpcore.terms.tasks import CAUSAL_LM, TaskKind


class Request(StrictModel):
    """What a caller may ask for. `auto` values follow from public values only."""

    # The bounds belong to the number alone: around the union they would be tried on "auto" too.
    steps: Literal["auto"] | Annotated[int, Field(ge=1, le=1_000_000)] = "auto"
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=10_000_000)] = "auto"
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = "auto"
    clipping: Clipping = Field(
        default="automatic",
        description=(
            "automatic: every unit's gradient is scaled to about clip_norm; flat: longer ones are cut to it; "
            "per-layer: cut within each layer, to clip_norm over the root of the number of layers; adaptive: flat, at "
            "a norm that begins at clip_norm and follows the median"
        ),
    )
    clip_norm: float = Field(
        default=1.0,
        ge=1e-6,
        le=1e6,
        description="under automatic clipping it scales all steps of sgd, and changes nothing for the others",
    )
    optimizer: Optimizer = Field(
        default="adamw",
        description="adam-bc: Adam without the noise's share of its second moment; sgd: with momentum 0.9",
    )
    weight_averaging: float = Field(
        default=0.0, ge=0, lt=1, description="decay of an exponential average of the weights, such as 0.99; 0: none"
    )
    head: Literal["auto"] | HeadStart = Field(
        default="auto",
        description=(
            "how a classifier of single texts starts; words: from what the model knows of its labels' words; random: "
            "from the seed; auto: words where the labels are words"
        ),
    )
    views: int = Field(
        default=1,
        ge=1,
        le=MOST_VIEWS,
        description=(
            "of pictures alone: how many views of each, moved by a few pixels, train as one record; their mean "
            "gradient is clipped once, so that they cost time and no privacy"
        ),
    )


class Hyperparameters(StrictModel):
    """A request with every number resolved."""

    steps: int
    batch_size: int
    learning_rate: float
    clip_norm: float = 1.0
    clipping: Clipping = "automatic"
    optimizer: Optimizer = "adamw"
    weight_averaging: float = 0.0
    weight_decay: float = 0.0
    betas: Listed[tuple[float, float]] = (0.9, 0.999)
    head: HeadStart = "random"
    views: int = 1


@dataclass(frozen=True)
class Defaults:
    """A method's numbers for callers who name none. The batch is at most a quarter of the declared size."""

    steps: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class OnePhase:
    """Defaults and phase of a method with one phase, for classifiers and for causal language models."""

    method: str
    classifier: Defaults
    causal_lm: Defaults

    def resolve(
        self,
        request: Request,
        options: BaseModel,
        *,
        task: TaskKind,
        declared_size: int,
        epsilon: float,
        facts: ModelFacts,
    ) -> Hyperparameters:
        """Numbers for a job on a file of `declared_size` units at `epsilon`; all that they depend on is public.

        Raises FieldError as `require_fitting` does.
        """
        require_fitting(request, declared_size)
        default = self.causal_lm if task in CAUSAL_LM else self.classifier
        return Hyperparameters(**resolved(request, default, declared_size))

    def phases(self, options: BaseModel, hyperparameters: Hyperparameters, *, declared_size: int) -> tuple[Phase, ...]:
        """One phase, which trains what the method trains."""
        return (phase(hyperparameters, name="train", trains=self.method, declared_size=declared_size),)


def require_fitting(request: Request, declared_size: int) -> None:
    """Raises FieldError as `require_batch` does, and for sgd without a learning rate: the defaults are Adam's, whose
    steps do not shrink with the gradient."""
    require_batch(request, declared_size)
    if request.optimizer == "sgd" and request.learning_rate == "auto":
        raise FieldError(
            "hyperparameters.learning_rate", "sgd needs a learning_rate: the default is for adamw and adam-bc"
        )


def require_batch(request: Request, declared_size: int) -> None:
    """Raises FieldError when the batch asked for is larger than the declared size: the rate cannot exceed one."""
    if request.batch_size != "auto" and request.batch_size > declared_size:
        raise FieldError(
            "hyperparameters.batch_size",
            f"batch_size {request.batch_size} is larger than the declared size {declared_size}",
        )


def resolved(request: Request, default: Defaults, declared_size: int) -> dict[str, Any]:
    """The fields of Hyperparameters: what was asked for, and defaults elsewhere."""
    batch = min(default.batch_size, max(1, declared_size // 4))
    return {
        "steps": default.steps if request.steps == "auto" else request.steps,
        "batch_size": batch if request.batch_size == "auto" else request.batch_size,
        "learning_rate": default.learning_rate if request.learning_rate == "auto" else request.learning_rate,
        "clip_norm": request.clip_norm,
        "clipping": request.clipping,
        "optimizer": request.optimizer,
        "weight_averaging": request.weight_averaging,
    }


def phase(hyperparameters: Hyperparameters, *, name: str, trains: str, declared_size: int, **changes: Any) -> Phase:
    """A phase of Poisson draws with these numbers: the rate is the batch over the public size. changes: fields of the
    phase that are otherwise."""
    values: dict[str, Any] = {
        "name": name,
        "trains": trains,
        "mechanism": subsampled(hyperparameters.batch_size, declared_size),
        "steps": hyperparameters.steps,
        "clip_norm": hyperparameters.clip_norm,
        "clipping": hyperparameters.clipping,
        "expected_batch": hyperparameters.batch_size,
        "optimizer": hyperparameters.optimizer,
        "learning_rate": hyperparameters.learning_rate,
        "weight_decay": hyperparameters.weight_decay,
        "betas": hyperparameters.betas,
        "weight_averaging": hyperparameters.weight_averaging,
    }
    return Phase(**values | changes)
