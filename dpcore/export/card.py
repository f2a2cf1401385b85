"""README.md of an export: what it belongs to, what it cost, and how it is loaded. Everything in it is public."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCardData

from dpcore.export import snippets
from dpcore.export.about import About, read_about
from dpcore.export.versions import OLDEST
from dpcore.terms.tasks import get_kind

_LICENSES = {"Apache License": "apache-2.0", "MIT License": "mit"}
_MOST_LABELS = 50


@dataclass(frozen=True)
class PrivacyClaim:
    """What a card says of the data and of what the job cost. guarantee: the promise as sentences."""

    epsilon: float
    delta: float
    unit: str
    relation: str
    mechanism: str
    guarantee: str
    declared_size: int


def write_card(folder: str | Path, base_folder: str | Path, privacy: PrivacyClaim) -> None:
    """Write README.md into an exported folder."""
    folder, about = Path(folder), read_about(folder)
    name, words = license_of(Path(base_folder))
    layout = snippets.layout_of(folder)
    front = ModelCardData(
        base_model=about.repository,
        library_name="peft" if layout in ("peft", "beside") else "transformers",
        license=name,
        pipeline_tag=_pipeline(about),
        tags=["differential-privacy", "tacit", about.method],
    )
    parts = (
        f"---\n{front.to_yaml()}\n---\n\n# {about.base_model}, fine-tuned with differential privacy",
        _base(about, words),
        f"## What it does\n\n{_task(about)}",
        f"## Privacy\n\n{_privacy(privacy)}",
        f"## How it is loaded\n\n{_loading(about, layout)}",
        f"```python\n{snippets.snippet(layout, about)}```",
        snippets.notes(layout, about),
    )
    (folder / "README.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _pipeline(about: About) -> str:
    """The hub's name for what it does."""
    kind = get_kind(about.task)
    return (
        "image-classification" if kind.of_pictures else "text-generation" if kind.causal_lm else "text-classification"
    )


def license_of(folder: Path) -> tuple[str, str]:
    """The licence that a base model's folder states, by the hub's name for it, and what to say of it."""
    readme = folder / "README.md"
    if readme.is_file():
        front = re.match(r"---\n(.*?)\n---\n", readme.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        stated = re.search(r"^license: *[\"']?([\w.-]+)[\"']?\s*$", front[1], re.MULTILINE) if front else None
        if stated:
            return stated[1], f"The base model's licence is {stated[1]}, as its own card says."
    for file in sorted(file for file in folder.glob("LICENSE*") if file.is_file()):
        first = file.read_text(encoding="utf-8", errors="replace")[:300]
        known = next((name for words, name in _LICENSES.items() if words in first), None)
        return known or "other", f"The base model's licence is in its {file.name}."
    return "unknown", "The base model's folder states no licence: ask whoever published it before you pass this on."


def _base(about: About, license_words: str) -> str:
    where = f"`{about.base_model}`"
    if about.repository:
        where = f"[{about.repository}](https://huggingface.co/{about.repository}) at commit `{about.commit}`"
    return f"Base model: {where}; sha256 of its weights: `{about.base_model_sha256}`. {license_words}"


def _task(about: About) -> str:
    size = "a picture is" if get_kind(about.task).of_pictures else "at most"
    rest = ", about" if get_kind(about.task).of_pictures else ", the rest was cut off"
    lines = [f"- Method: `{about.method}`; task: `{about.task}`; {size} {about.max_length} tokens{rest}."]
    if about.labels:
        shown = ", ".join(json.dumps(label, ensure_ascii=False) for label in about.labels[:_MOST_LABELS])
        more = len(about.labels) - _MOST_LABELS
        lines.append(f"- Labels, in their order: {shown}" + (f" and {more} more, in tacit.json." if more > 0 else "."))
    return "\n".join(lines)


def _privacy(privacy: PrivacyClaim) -> str:
    limits = (
        "It does not cover what the base model had learnt before, what else is known of the same people, and the rows "
        "of other files."
    )
    if privacy.unit == "record":
        limits += " Who has several records in the data is protected for each record, not for all of them together."
    relation = privacy.relation.replace("_", " ")
    return "\n".join(
        (
            f"- Charged: epsilon {privacy.epsilon:.6g}, delta {privacy.delta:g}, for {relation} {privacy.unit}.",
            f"- Mechanism: {privacy.mechanism}. The data's declared size, a public number: {privacy.declared_size}.",
            f"- {privacy.guarantee}",
            f"- Limits: {limits} All numbers are in the job's `privacy_report.json`.",
        )
    )


def _loading(about: About, layout: str) -> str:
    needs = {
        "peft": "transformers and peft",
        "trained": "transformers and the `load.py` here",
        "beside": "transformers, peft and the `load.py` here",
    }.get(layout, "transformers")
    base = "" if layout == "whole" or about.repository else f" `base` is the folder of `{about.base_model}`."
    releases = ", ".join(f"{name} {release}" for name, release in OLDEST.items() if "peft" in needs or name != "peft")
    return (
        f"With {needs}; the oldest releases that it was tested with: {releases}. In float32, as it was trained: newer "
        f"releases load a base model in the precision of its file, and bfloat16 moves the scores.{base}"
    )
