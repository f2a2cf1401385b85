"""A request for sampled text, held against the job that it comes with. Only public values are looked at, and nothing is
charged for what is sampled: it follows from the model that the job releases."""

import json
from typing import Any

from domain.kit.refusals import Invalid
from dpcore.terms.facts import ModelFacts
from dpcore.terms.synthetic import MOST_PROMPT_BYTES, MOST_REPEATED_BYTES, MOST_TOKENS, Synthetic
from dpcore.terms.tasks import TaskKind, get_kind

_WITHOUT_PROMPTS = "text"
"""The one task whose records begin with what the model writes."""


def require_samplable(wanted: Synthetic, *, task: TaskKind, facts: ModelFacts, federated: bool) -> None:
    """Raises Invalid, naming the field, where a job on this task and model cannot sample what is asked for. facts: of
    the model that the job releases."""
    if not get_kind(task).causal_lm:
        raise _refused(
            "synthetic", f"the job learns the task {task}, and only a language model writes text; leave synthetic out"
        )
    if federated:
        raise _refused("synthetic", "a federated job does not sample text: sample from its adapter yourself")
    positions = facts.max_positions if facts.student is None else min(facts.max_positions, facts.student.max_positions)
    if wanted.max_new_tokens >= positions:
        raise _refused(
            "synthetic.max_new_tokens",
            f"the model has {positions} positions, of which the prompt takes some; ask for fewer new tokens",
        )
    if wanted.tokens > MOST_TOKENS:
        raise _refused(
            "synthetic.records",
            f"{wanted.records:,} records of {wanted.max_new_tokens:,} new tokens are {wanted.tokens:,} tokens, and a "
            f"job samples at most {MOST_TOKENS:,}; ask for fewer records, or fewer max_new_tokens",
        )
    _require_prompts(wanted, task, facts)


def as_kept(wanted: Synthetic) -> dict[str, Any]:
    """The request as it stands with the job, every default in it."""
    kept: dict[str, Any] = wanted.model_dump(mode="json", exclude_none=True)
    return kept


def _require_prompts(wanted: Synthetic, task: TaskKind, facts: ModelFacts) -> None:
    if wanted.prompts is None:
        if task != _WITHOUT_PROMPTS:
            raise _refused(
                "synthetic.prompts",
                f"a {task} goes on from a prompt: name public ones, since none is ever taken from the private file",
            )
        if not facts.begins:
            raise _refused(
                "synthetic.prompts", "the model has no token that a text begins with: name prompts to go on from"
            )
        return
    if task != "chat" and any(prompt.messages is not None for prompt in wanted.prompts):
        raise _refused("synthetic.prompts", f"messages are for the task chat, and this is {task}: name a prompt")
    if (kept := _bytes(as_kept(wanted))) > MOST_PROMPT_BYTES:
        raise _refused(
            "synthetic.prompts", f"the prompts are {kept:,} bytes together, and at most {MOST_PROMPT_BYTES:,} are kept"
        )
    sizes = [_bytes(prompt.model_dump(exclude_none=True)) for prompt in wanted.prompts]
    repeated = sum(count * size for count, size in zip(wanted.counts, sizes, strict=True))
    if repeated > MOST_REPEATED_BYTES:
        raise _refused(
            "synthetic.prompts",
            f"the file repeats the prompts to {repeated:,} bytes, and at most {MOST_REPEATED_BYTES:,} are made; name "
            "shorter prompts, or ask for fewer records",
        )


def _bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _refused(field: str, why: str) -> Invalid:
    return Invalid(why, code="cannot_sample", param=field)
