"""A language model over the users of one file: each drawn user trains on its own records, and what that moves is
clipped as one vector and noised (McMahan et al. 2018), of some rows of the vocabulary and low-rank factors of the
blocks alone (partial embedding updates with LoRA and NCE, Xu et al. 2022, arXiv:2207.08988; a reconstruction, the full
text was not at hand).

Users are drawn by Poisson at the rate of this file's own declared number of them, so that epsilon is the true one of
this population, and never that of a larger one that is imagined.
"""

from typing import Annotated, Literal

from pydantic import Field

from dpcore.terms import hyperparameters as shared
from dpcore.terms import memory as sizes
from dpcore.terms.errors import FieldError
from dpcore.terms.estimators import Histogram, Local
from dpcore.terms.facts import ModelFacts
from dpcore.terms.hyperparameters import Defaults
from dpcore.terms.mechanisms import Gaussian
from dpcore.terms.methods import lora
from dpcore.terms.program import Phase
from dpcore.terms.strict import Listed, StrictModel
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

__all__ = ["Options", "Request", "check", "memory", "phases", "resolve", "trainable"]

NAME, WORDS, TRAIN = "federated-lm", "words", "train"
"""Of the method and of its phases."""

_DEFAULT = Defaults(steps=100, batch_size=200, learning_rate=0.5)
_RATES = {"fedadam": 0.01, "fedavg": 1.0}
_PART = 10
"""Rows that train where nobody says: one of so many."""
_QUIETER = 20.0
"""The noise of the counts of words in that of the rounds: one look costs little beside many rounds."""


class Options(StrictModel):
    """What trains, how a user trains, and what the server does."""

    rows: Literal["auto", "all"] | Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default="auto",
        description="rows of the vocabulary that train, in the embedding and the head; auto: a tenth; all: every one",
    )
    chosen_by: Literal["frequency", "seed", "private"] = Field(
        default="frequency",
        description=(
            "which rows: frequency: the most frequent in public text, by what the model's folder says or the order of "
            "its tokenizer; seed: drawn by the job's seed; private: the most frequent of the file, by noised counts "
            "over all users, a phase of its own that is paid for"
        ),
    )
    blocks: Literal["lora", "all", "none"] = Field(
        default="lora", description="what trains beside the rows: LoRA's factors, all other weights, or nothing"
    )
    r: int = Field(default=8, ge=1, le=256, description="rank of LoRA's update, under blocks: lora")
    alpha: float = Field(default=16.0, gt=0, le=1e4, description="LoRA's update is scaled by alpha / r")
    target_modules: str | Listed[tuple[str, ...]] = Field(
        default=lora.AUTO, description="the layers that LoRA adapts, as for the method lora"
    )
    loss: Literal["softmax", "nce", "ranking"] = Field(
        default="softmax",
        description=(
            "nce: noise-contrastive estimation, by the targets and a few words of public probabilities: its memory "
            "does not grow with the vocabulary; ranking: the same by which of these words it is, for models that "
            "learnt from all words and need not learn to be normalised"
        ),
    )
    negatives: int = Field(
        default=64, ge=1, le=1_000_000, description="words drawn beside the targets, under nce and ranking"
    )
    local_steps: int = Field(default=2, ge=1, le=1000, description="of a user's training in each round")
    local_batch: int = Field(default=16, ge=1, le=10_000, description="records of a local step at most")
    most_tokens: int = Field(
        default=4096,
        ge=1,
        le=2**24,
        description="of a user that are looked at: its first records that have room in them",
    )
    server: Literal["fedavg", "fedadam"] = Field(
        default="fedadam",
        description=(
            "what is done with the noised mean of the users' changes: fedavg: it is added; fedadam: it is what Adam "
            "takes for a gradient"
        ),
    )
    server_learning_rate: float | None = Field(
        default=None, gt=0, le=100, description="of the server; left out: 1 for fedavg, 0.01 for fedadam"
    )

    @property
    def lora(self) -> lora.Options:
        """Of the blocks."""
        return lora.Options(r=self.r, alpha=self.alpha, target_modules=self.target_modules)

    def rows_of(self, vocabulary: int) -> int:
        """How many rows of so many train."""
        if isinstance(self.rows, int):
            return self.rows
        return vocabulary if self.rows == "all" else max(1, vocabulary // _PART)


class Request(shared.Request):
    """What a caller may ask for: steps are rounds, a batch is of users."""

    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = Field(
        default="auto", description="of a user's own training, plain descent"
    )
    clipping: Literal["flat", "adaptive"] = Field(
        default="flat",
        description=(
            "flat: what a user's training moves is cut to clip_norm as one vector; adaptive: to a norm that begins "
            "there and follows the median"
        ),
    )
    clip_norm: float = Field(
        default=0.5, ge=1e-6, le=1e6, description="of what one user's training moves, all that trains together"
    )
    optimizer: Literal["sgd"] = Field(
        default="sgd", description="of a user's own training, without momentum; the option server is the server's"
    )


class Hyperparameters(shared.Hyperparameters):
    """A request with every number resolved."""

    server_learning_rate: float


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """Fits causal language models. Raises ValueError for another task, FieldError for more rows or negatives than the
    vocabulary has, for options that mean nothing beside others, and as `lora` does."""
    if task not in CAUSAL_LM:
        raise ValueError(f"{NAME} trains language models to write; the file is for the task {task}")
    vocabulary = facts.vocab_size
    if options.rows_of(vocabulary) > vocabulary:
        raise FieldError("rows", f"rows: the vocabulary has {vocabulary} rows; {options.rows} of them cannot train")
    if options.loss != "softmax" and options.negatives > vocabulary:
        words = f"negatives: there are {vocabulary} words; {options.negatives} of them cannot be drawn"
        raise FieldError("negatives", words)
    if options.rows == "all" and options.chosen_by != "frequency":
        raise FieldError("chosen_by", "chosen_by means nothing with rows: all; leave it out")
    if options.loss == "softmax" and options.negatives != Options.model_fields["negatives"].default:
        raise FieldError("negatives", "negatives means nothing with loss: softmax; leave it out")
    if options.blocks == "lora":
        lora.check(options.lora, facts, task)
        return
    for name in ("r", "alpha", "target_modules"):
        if getattr(options, name) != Options.model_fields[name].default:
            raise FieldError(name, f"{name} is LoRA's, and means nothing with blocks: {options.blocks}; leave it out")


def resolve(
    request: Request, options: Options, *, task: TaskKind, declared_size: int, epsilon: float, facts: ModelFacts
) -> Hyperparameters:
    """The numbers of the rounds. Raises FieldError for a batch above the declared number of users."""
    shared.require_batch(request, declared_size)
    rate = options.server_learning_rate
    return Hyperparameters(
        **shared.resolved(request, _DEFAULT, declared_size),
        betas=(0.0, 0.999) if options.server == "fedavg" else (0.9, 0.999),
        server_learning_rate=_RATES[options.server] if rate is None else rate,
    )


def phases(options: Options, hyperparameters: Hyperparameters, *, declared_size: int) -> tuple[Phase, ...]:
    """The rounds, each on a Poisson draw of users; before them, where rows are chosen privately, one look at how often
    every user has each word."""
    local = Local(
        local_steps=options.local_steps,
        batch_size=options.local_batch,
        learning_rate=hyperparameters.learning_rate,
        most_tokens=options.most_tokens,
    )
    rounds = shared.phase(
        hyperparameters,
        name=TRAIN,
        trains=NAME,
        declared_size=declared_size,
        estimator=local,
        optimizer="sgd" if options.server == "fedavg" else "adam-bc",
        learning_rate=hyperparameters.server_learning_rate,
    )
    if options.chosen_by != "private":
        return (rounds,)
    words = Phase(
        name=WORDS,
        trains=NAME,
        estimator=Histogram(most_tokens=options.most_tokens),
        mechanism=Gaussian(noise_multiplier=_QUIETER),
        steps=1,
        clip_norm=1.0,
        clipping="automatic",
        expected_batch=1,
        optimizer="sgd",
        learning_rate=1.0,
        betas=(0.0, 0.999),
    )
    return words, rounds


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Values that some phase trains, about: rows of one table, or of two where the head has its own; what trains in the
    blocks; and a count of each word where rows are chosen privately."""
    counts = facts.vocab_size if options.chosen_by == "private" else 0
    return payload(options, facts, task=task) + counts


def payload(options: Options, facts: ModelFacts, *, task: TaskKind) -> int:
    """Numbers that a device would send in a round, about."""
    rows = options.rows_of(facts.vocab_size) * facts.hidden_size * _tables(facts)
    if options.blocks == "none":
        return rows
    if options.blocks == "lora":
        return rows + lora.trainable(options.lora, facts, labels=0, task=task)
    return rows + facts.parameters - facts.vocab_size * facts.hidden_size


def _tables(facts: ModelFacts) -> int:
    """Whether the head has a table of its own; where that is not known, it is taken for one with the embedding."""
    return 1 if facts.tied_head is not None or facts.linear is None else 2


def head_bytes(options: Options, facts: ModelFacts, *, places: int) -> int:
    """Bytes of the scores of so many places, with what their backward pass keeps: of all words, or of the target and
    the negatives with their vectors."""
    if options.loss == "softmax":
        return 4 * 3 * places * facts.vocab_size
    return 4 * (3 * places * (options.negatives + 1) + (places + options.negatives) * facts.hidden_size)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that training needs beside the process itself: the weights; what trains as it was before, its gradient, the
    user's vector, the sum with its noise in float64, and Adam's moments; and one local batch of the longest records."""
    tokens = options.local_batch * max_length
    own = trainable(options, facts, labels=labels, task=task)
    tables = facts.vocab_size * facts.hidden_size * (_tables(facts) - 1)
    layers = facts.layers * sizes.layer(facts, max_length=max_length)
    at_work = sizes.of_tokens(layers, max_length=max_length, tokens=tokens)
    return 4 * (facts.parameters + tables + 11 * own) + at_work + head_bytes(options, facts, places=tokens)
