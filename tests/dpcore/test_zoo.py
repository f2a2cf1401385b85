"""What each method makes of many architectures, from the folder to a step and to sums in float64 one by one."""

from pathlib import Path

import pytest

from benchmarks.architectures import Outcome, outcome
from dpcore.terms.methods import method_names

from . import zoo

SAMPLE = [
    ("albert", "classification", "full", "fast"),  # layers that share their weights
    ("convbert", "classification", "bitfit", "one by one"),  # a bare parameter
    ("roformer", "classification", "bitfit", "fast"),
    ("squeezebert", "classification", "full", "one by one"),  # grouped convolutions
    ("longformer", "classification", "lora", "one by one"),  # tokens before examples
    ("gpt2", "classification", "full", "fast"),  # weights that lie transposed
    ("gemma2", "completion", "full", "fast"),  # norms with an offset, capped scores, a tied head
    ("qwen3", "completion", "lora-fa", "fast"),  # norms in each head
    ("phi", "completion", "side", "fast"),
    ("smollm3", "completion", "distill", "fast"),  # what is told by layer is cut with the layers
    ("modernbert", "classification", "reversible", "fast"),  # layers of two kinds, each with a mask of its own
    ("phi", "completion", "reversible", "fast"),
]
"""Type, kind, method and the engine that the step takes: one of each way in which layers use a parameter."""

DEFAULTS = [
    ("bloom", "classification"),
    ("bloom", "completion"),
    ("deberta", "classification"),
    ("deberta-v2", "classification"),
    ("electra", "classification"),
    ("falcon", "completion"),
    ("gemma", "completion"),
    ("gpt_neox", "completion"),
    ("mamba", "completion"),
    ("mistral", "completion"),
    ("modernbert", "classification"),
    ("mpnet", "classification"),
    ("opt", "completion"),
    ("phi3", "completion"),
]
"""Families that people fine-tune: the default method trains them without an option named."""


def tried(name: str, kind: zoo.Kind, method: str, folder: Path) -> Outcome:
    zoo.save(name, kind, folder)
    return outcome(name, kind, method, folder)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("name", "kind", "method", "engine"), SAMPLE)
def test_sums_of_a_method_are_exact(name, kind, method, engine, tmp_path):
    found = tried(name, kind, method, tmp_path)
    assert (found.way, found.engine) == ("works", engine), found


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("name", "kind"), DEFAULTS)
def test_lora_trains_this_family_by_default(name, kind, tmp_path):
    found = tried(name, kind, "lora", tmp_path)
    assert found.way == "works", found


@pytest.mark.verify
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in zoo.KINDS.items() for name in names])
def test_every_method_is_exact_or_refuses_before_the_step(kind, name, tmp_path):
    found = {method: tried(name, kind, method, tmp_path / method) for method in method_names()}
    assert not {method: made for method, made in found.items() if made.way not in ("works", "refused")}
