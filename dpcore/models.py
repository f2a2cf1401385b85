"""Base models from local folders: safetensors only, no code from the folder, nothing from the network."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from dpcore.spec.tasks import CAUSAL_LM, TaskKind


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the model in a folder. Raises OSError when there is none."""
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def build_model(kind: TaskKind, folder: str | Path, labels: Sequence[str], *, seed: int) -> PreTrainedModel:
    """The base model for a task, in evaluation mode, float32: a causal language model as it is, or a classifier with
    a fresh head for the public labels.

    The seed drives the head's initialisation only. Raises OSError when the folder has no model in safetensors, and
    ValueError when it lacks weights of the base model itself (an adapter cannot carry their random stand-ins) or holds
    no model for this task.
    """
    causal = kind in CAUSAL_LM
    head = {} if causal else {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
    auto = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    model: PreTrainedModel
    with seeded(seed), _quiet():
        model, report = auto.from_pretrained(
            os.fspath(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **head,
        )
    own = "" if causal else f"{model.base_model_prefix}."
    lacking = sorted(key for key in report["missing_keys"] if key.startswith(own))
    if lacking:
        raise ValueError(f"the model's folder lacks weights: {', '.join(lacking)}")
    if not causal and model.config.pad_token_id is None:
        # A decoder's classifier reads the last token that is not padding, and needs to know what padding is.
        eos = model.config.eos_token_id
        model.config.pad_token_id = eos if isinstance(eos, int) else 0
    # Evaluation mode: the base model's own dropout would only add to the noise.
    return model.eval()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global generators seeded inside, and as they were outside."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, and no report that the head is new: it is meant to be."""
    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
