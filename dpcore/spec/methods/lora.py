"""Low-rank adaptation: two thin matrices beside each adapted weight, and a new classification head."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dpcore.spec.facts import ModelFacts
from dpcore.spec.plan import Phase, Plan

NAME = "lora"


class Options(BaseModel):
    """What is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    r: int = Field(default=8, ge=1, le=256, description="rank of the update")
    alpha: float = Field(default=16.0, gt=0, le=1e4, description="the update is scaled by alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="on the input of the adapted layers")
    target_modules: Literal["auto"] | tuple[str, ...] = Field(
        default="auto",
        description="the adapted linear layers; auto: attention's query and value in the model's upper half",
    )


class Request(BaseModel):
    """What a caller may ask for. `auto` values follow from public values only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # The bounds belong to the number alone: around the union they would be tried on "auto" too.
    steps: Literal["auto"] | Annotated[int, Field(ge=1, le=1_000_000)] = "auto"
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=10_000_000)] = "auto"
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = "auto"


class Hyperparameters(BaseModel):
    """A request with every number resolved."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int
    batch_size: int
    learning_rate: float
    clip_norm: float = 1.0
    clipping: Literal["automatic", "flat"] = "automatic"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)


def resolve(request: Request, *, declared_size: int, epsilon: float, facts: ModelFacts) -> Hyperparameters:
    """Numbers for a job on a file of `declared_size` units at `epsilon`.

    Raises ValueError when the batch asked for is larger than the declared size: the rate cannot exceed one.
    """
    if request.batch_size != "auto" and request.batch_size > declared_size:
        raise ValueError(f"batch_size {request.batch_size} is larger than the declared size {declared_size}")
    return Hyperparameters(
        steps=125 if request.steps == "auto" else request.steps,
        batch_size=min(2048, max(1, declared_size // 4)) if request.batch_size == "auto" else request.batch_size,
        learning_rate=1e-2 if request.learning_rate == "auto" else request.learning_rate,
    )


def phases(hyperparameters: Hyperparameters, *, declared_size: int) -> tuple[Phase, ...]:
    """One phase: the rate is the batch over the public size."""
    return (
        Phase(
            name="train",
            sample_rate=hyperparameters.batch_size / declared_size,
            steps=hyperparameters.steps,
        ),
    )


def plan(
    options: Options,
    hyperparameters: Hyperparameters,
    *,
    declared_size: int,
    noise_multiplier: float,
    max_length: int,
    seed: int,
) -> Plan:
    """The plan of the one phase, once its noise multiplier is known."""
    (phase,) = phases(hyperparameters, declared_size=declared_size)
    return Plan(
        sample_rate=phase.sample_rate,
        noise_multiplier=noise_multiplier,
        steps=phase.steps,
        clip_norm=hyperparameters.clip_norm,
        clipping=hyperparameters.clipping,
        expected_batch=hyperparameters.batch_size,
        method=NAME,
        options=options.model_dump(mode="json"),
        learning_rate=hyperparameters.learning_rate,
        weight_decay=hyperparameters.weight_decay,
        betas=hyperparameters.betas,
        max_length=max_length,
        seed=seed,
    )


def trainable(options: Options, facts: ModelFacts, *, labels: int) -> int:
    """Trainable weights: about, because head shapes differ between architectures."""
    auto = options.target_modules == "auto"
    adapted = 2 * ((facts.layers + 1) // 2) if auto else facts.layers * len(options.target_modules)
    per_target = options.r * 2 * facts.hidden_size
    return adapted * per_target + labels * (facts.hidden_size + 1)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, tokens: int = 2048) -> int:
    """Bytes that training needs beside the process itself, from public sizes.

    Frozen weights, saved activations of one micro-batch of `tokens`, per-example gradients of the same, and weights,
    mean, Adam moments of what trains; all float32.
    """
    per_token = facts.layers * (12 * facts.hidden_size + 3 * facts.intermediate_size + facts.heads * max_length)
    examples = max(1, tokens // max_length)
    train = trainable(options, facts, labels=labels)
    return 4 * (facts.parameters + max(tokens, max_length) * per_token + (examples + 4) * train)
