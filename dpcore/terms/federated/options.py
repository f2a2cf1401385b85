"""What a federated job trains, how its rounds go, and which of its weights a round trains."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dpcore.terms.methods import lora

Factors = Literal["a-frozen", "both", "alternating"]
"""Which of the two thin matrices train, B A beside each adapted weight.

a-frozen: B alone, A stays as the public seed drew it (Sun et al. 2024, FFA-LoRA). both: as DP-LoRA (Liu et al. 2023);
the mean of the silos' B times the mean of their A is not the mean of their products. alternating: B in even rounds and
A in odd ones (LA-LoRA); the other is the same for all silos, so that, as with a-frozen, the mean of the factors is the
factor of the mean. A classifier's head trains in every round.
"""


LEAST_MASKED = 3
"""Silos in a sum behind masks."""
MOST_MASKED = 2**26
"""Declared units of all silos in such a sum: limit / step * units stays below 2^63 on the grid of messages
(`dpcore.federated.secure.grid`), so that no sum wraps around."""


class Options(lora.Options):
    """What is trained, and in which rounds."""

    factors: Factors = Field(default="a-frozen", description="which thin matrices train: B alone, both, or in turn")
    server: Literal["fedavg", "fedadam"] = Field(
        default="fedadam",
        description=(
            "what is done with the mean of the silos' changes: fedavg: it is added; fedadam: it is what Adam takes for "
            "a gradient"
        ),
    )
    server_learning_rate: float | None = Field(
        default=None, gt=0, le=100, description="of the server; left out: 1 for fedavg, 0.03 for fedadam"
    )
    clipping: Literal["record", "delta"] = Field(
        default="record",
        description=(
            "record: each unit's gradient is clipped in every local step, which is noised; delta: what a whole round "
            "of local steps changes is clipped, and noised once, without amplification by a draw"
        ),
    )
    rounds: int = Field(default=50, ge=1, le=1000, description="of messages from every silo")
    local_steps: int = Field(default=1, ge=1, le=1000, description="of each silo in each round")
    least_silos: int = Field(default=2, ge=1, le=100, description="messages without which a round changes nothing")

    masked: bool = Field(
        default=False,
        description=(
            "messages are added up behind masks, so that the coordinator sees sums of at least three silos and no "
            "single message; a silo that vanishes before its masks are opened costs the round"
        ),
    )

    @model_validator(mode="after")
    def _public_factors(self) -> Self:
        if self.dropout:
            raise ValueError("dropout is not for federated jobs")
        return self

    @property
    def least(self) -> int:
        """Messages without which a round changes nothing: of two behind masks, each silo would know the other's."""
        return max(self.least_silos, LEAST_MASKED) if self.masked else self.least_silos

    @property
    def rate(self) -> float:
        """Of the server."""
        if self.server_learning_rate is not None:
            return self.server_learning_rate
        return 1.0 if self.server == "fedavg" else 0.03

    @property
    def lora(self) -> lora.Options:
        """What lora itself is asked for."""
        return lora.Options(r=self.r, alpha=self.alpha, target_modules=self.target_modules)

    @property
    def steps_each(self) -> int:
        """Steps of a silo's program in a round: a delta is one."""
        return 1 if self.clipping == "delta" else self.local_steps

    def trains(self, name: str, round: int) -> bool:
        """Whether a trainable weight, by its name in PEFT's model, trains in this round, numbered from 0."""
        if ".lora_A." in name:
            return self.factors == "both" or (self.factors == "alternating" and round % 2 == 1)
        if ".lora_B." in name:
            return self.factors != "alternating" or round % 2 == 0
        return True

    @property
    def kinds(self) -> range:
        """Rounds of which each trains what no other of them trains: all others train what one of these does."""
        return range(min(self.rounds, 2 if self.factors == "alternating" else 1))
