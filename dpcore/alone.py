"""One private run on a list of texts, without the service.

Guarantee: (epsilon, delta)-differential privacy of the model for each text, add or remove one, for this run alone. What
the service adds is missing: no ledger counts the next run on the same texts, nobody refuses it, and what two runs tell
together is their costs together. A person with several texts is protected for each of them, not for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from dpcore.methods import get_trainer
from dpcore.models import build_model, load_tokenizer, with_padding
from dpcore.run import run
from dpcore.tasks import make_task
from dpcore.terms import accounting
from dpcore.terms.facts import read_facts
from dpcore.terms.methods import DEFAULT_METHOD, get_method
from dpcore.terms.program import Program, of_users, parts, scaled
from dpcore.terms.tasks import TaskKind

_KIND: TaskKind = "text"


@dataclass(frozen=True)
class FineTuned:
    """A language model that learnt from texts, and what that cost."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    program: Program
    """What ran, with every number that the price rests on."""
    epsilon: float
    """Of this run alone: what was asked, or a hair less."""
    delta: float

    @property
    def promise(self) -> str:
        """The guarantee, with what it leaves out."""
        mechanisms = "; then ".join(p.mechanism.sentence(p.steps) for p in self.program.phases)
        return (
            f"({self.epsilon:.3f}, {self.delta:g})-differentially private for each text (add or remove one): "
            f"{mechanisms}. For this run alone: nobody counts another run on the same texts."
        )


def train(
    texts: Sequence[str],
    folder: str | Path,
    *,
    size: int,
    epsilon: float,
    delta: float,
    method: str = DEFAULT_METHOD,
    max_length: int = 128,
    seed: int = 0,
    **numbers: Any,
) -> FineTuned:
    """Fine-tune the causal language model in a folder on texts.

    size: about how many texts there are, a number that may be known to everybody, such as 4,000 of 3,987: rates and
    defaults follow from it and never from the texts. numbers: steps, batch_size, learning_rate and the others of the
    method's Request; its options are their defaults. The seed drives initialisation only, never draws or noise.

    Raises ValueError for more texts than `size`, a delta that is not below 1 / size, a method that needs more than
    texts, or numbers that do not fit; OSError and ValueError for a folder that holds no such model; NotTrainable before
    the first step.
    """
    if len(texts) > size:
        raise ValueError("there are more texts than size says: name a public number that is no smaller")
    if not 0 < delta < 1 / size:
        raise ValueError(f"delta must lie between 0 and 1 / size, which is {1 / size:g}")
    facts, terms, trainer = read_facts(folder), get_method(method), get_trainer(method)
    options = terms.Options()
    terms.check(options, facts, _KIND)
    request = terms.Request.model_validate(numbers)
    resolved = terms.resolve(request, options, task=_KIND, declared_size=size, epsilon=epsilon, facts=facts)
    phases = terms.phases(options, resolved, declared_size=size)
    if of_users(phases):
        raise ValueError(f"{method} protects users, and texts without an owner have none")
    # Any filter is a valid price; this one suits a run of about these steps.
    filter = accounting.reference_filter(
        epsilon, delta, phases[0].mechanism.sample_rate, sum(phase.steps for phase in phases)
    )
    program = Program(
        method=method,
        options=options.model_dump(mode="json"),
        max_length=min(max_length, facts.max_positions),
        seed=seed,
        phases=scaled(phases, accounting.calibrate(epsilon, delta, filter, parts(phases))),
    )
    base = build_model(_KIND, folder, (), seed=seed)
    tokenizer = with_padding(load_tokenizer(folder), base)
    task = make_task(_KIND, tokenizer, max_length=program.max_length)
    model = trainer.attach(base, program.options, task=_KIND, seed=seed)
    run(
        model=model,
        task=task,
        records=task.encode({"text": texts}, []),
        program=program,
        begin=partial(trainer.begin, task=_KIND),
        learns=trainer.learns,
        between=trainer.between,
        authorise=lambda phase, steps: steps,
        save=lambda data: None,
        should_stop=lambda: False,
    )
    spent = accounting.epsilon_alone(program.cost(filter.orders), delta, filter)
    return FineTuned(model, tokenizer, program, spent, delta)
