"""synthetic.md: what a file of sampled text is, and what it is not. Everything in it is public."""

import json
from collections.abc import Mapping
from typing import Any


def card(report: Mapping[str, Any]) -> str:
    """From a job's report, whose part `synthetic` is of a file that there is."""
    privacy, made = report["privacy"], report["synthetic"]
    asked = made["asked"]
    how = ", ".join(f"{name} {value}" for name, value in asked.items() if name not in ("records", "prompts"))
    parts = (
        "# Sampled text",
        f"`{made['file']}`, sha256 `{made['sha256']}`: {made['records']} records that a language model wrote. Job "
        f"`{report['job']}` fine-tuned `{report['base_model']}` (sha256 of its weights: "
        f"`{report['base_model_sha256']}`) with differential privacy, and they were sampled from the model that it "
        "released.",
        "## What it cost",
        f"The job was charged epsilon {privacy['epsilon_charged']:.6g} at delta {privacy['delta']:g}, for each "
        f"{privacy['unit']}, under budget `{privacy['budget']}`. The sampling was charged nothing: it looked at the "
        "released model and at public values, and at no row. What is promised of the model is promised of the two "
        "together. What the budget spent on other jobs on the same data adds to it.",
        "## How it was made",
        f"Asked for: {asked['records']} records; {how}. Those that came out empty were left out. The draws follow "
        "from the seed: stock transformers makes the same file of the released model, on the same kind of machine.",
        _prompts(asked.get("prompts")),
        "## What it is not",
        "- No copies of rows with names taken out: nothing was anonymised. A model wrote it that has learnt from rows, "
        "and the promise above is all that is promised.",
        "- Not free of other people's words: the base model's public pre-training text, what it holds of persons "
        "included, may be in it word for word. Differential privacy says nothing of that.",
        "- Not true, and not representative: how often something is said here says little of how often it was in the "
        "data. A classifier or a statistic made of it is to be measured on real rows.",
        "- Not checked by anybody: read some of it before you pass it on.",
    )
    return "\n\n".join(parts) + "\n"


def _prompts(prompts: list[Mapping[str, Any]] | None) -> str:
    if prompts is None:
        return "Each record was written from the beginning of a text, without a prompt."
    lines = (f"- weight {p.get('weight', 1.0):g}: {json.dumps(_said(p), ensure_ascii=False)}" for p in prompts)
    return (
        "The records go on from these prompts, which came with the request and are public. How often each was used was "
        "asked for too, and says nothing of the data:\n\n" + "\n".join(lines)
    )


def _said(prompt: Mapping[str, Any]) -> Any:
    return prompt["messages"] if "messages" in prompt else prompt["prompt"]
