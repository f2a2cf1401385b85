"""Base models from local folders: safetensors only, no code from the folder, nothing from the network."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the model in a folder. Raises OSError when there is none."""
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def build_classifier(folder: str | Path, labels: Sequence[str], *, seed: int) -> PreTrainedModel:
    """The base model with a fresh classification head for the public labels, in evaluation mode, float32.

    The seed drives the head's initialisation only. Raises OSError when the folder has no model in safetensors, and
    ValueError when it lacks weights of the base model itself: an adapter cannot carry their random stand-ins.
    """
    model: PreTrainedModel
    with seeded(seed), _quiet():
        model, report = AutoModelForSequenceClassification.from_pretrained(
            os.fspath(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
            output_loading_info=True,
        )
    lacking = sorted(key for key in report["missing_keys"] if key.startswith(f"{model.base_model_prefix}."))
    if lacking:
        raise ValueError(f"the model's folder lacks weights: {', '.join(lacking)}")
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
