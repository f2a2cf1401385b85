"""What travels: bytes of a message beside those of a model, by arithmetic on shapes."""

from dpcore.terms.facts import ModelFacts
from dpcore.terms.federated.options import Options
from dpcore.terms.methods import lora
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

NUMBER_BYTES = 4
"""float32."""
MASKED_BYTES = 8
"""An integer modulo 2^64."""


def numbers(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind, round: int = 0) -> int:
    """How many numbers a message of this round holds: about, because head shapes differ between architectures."""
    sides = lora.widths(options.lora, facts, task)
    inputs, outputs = sum(side for side, _ in sides), sum(side for _, side in sides)
    head = 0 if task in CAUSAL_LM else labels * (facts.hidden_size + 1)
    a, b = options.trains(".lora_A.", round), options.trains(".lora_B.", round)
    return options.r * (a * inputs + b * outputs) + head


def message_bytes(numbers: int, masked: bool = False) -> int:
    """Of the numbers themselves: names and shapes are a few kilobytes more."""
    return (MASKED_BYTES if masked else NUMBER_BYTES) * numbers


def ratio(model_numbers: int, numbers: int, masked: bool = False) -> float:
    """How many times the message the whole model is."""
    return NUMBER_BYTES * model_numbers / message_bytes(numbers, masked)


def crossover(inputs: int, outputs: int) -> float:
    """The rank from which on both factors of a matrix are as large as the matrix: r (d1 + d2) = d1 d2."""
    return inputs * outputs / (inputs + outputs)
