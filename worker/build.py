"""The model of a job, from public values alone: the allow-list, the labels, the method's options."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from domain.logs import describe
from domain.models import base_models
from domain.settings import WorkerSettings
from dpcore.methods import get_method
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import Task, make_task
from worker.assignment import Assignment
from worker.errors import Refused
from worker.log import log


@dataclass(frozen=True)
class Built:
    """A model ready to be trained, on the device that it is trained on."""

    model: nn.Module
    task: Task
    tokenizer: PreTrainedTokenizerBase
    base_model_sha256: str
    source: str
    """Where the base model came from, as `domain.models` says it."""
    folder: Path
    """Of the base model, on this machine."""


def build(settings: WorkerSettings, assignment: Assignment) -> Built:
    """Load the base model and attach the method. Raises Refused with a public reason."""
    plan = assignment.plan
    try:
        known = base_models(settings).get(assignment.model)
    except (OSError, ValueError) as error:
        raise Refused("model_unavailable", "This worker's base models cannot be read.") from error
    if known is None:
        raise Refused("model_unavailable", f"The base model {assignment.model!r} is not one of this worker's.")
    try:
        tokenizer = load_tokenizer(known.folder)
        base = build_model(assignment.task, known.folder, assignment.labels, seed=plan.seed)
    except (OSError, ValueError) as error:
        log.error("job %s: loading %s failed: %s", assignment.job_id, assignment.model, describe(error))
        raise Refused("model_unavailable", f"The base model {assignment.model!r} cannot be loaded.") from error
    try:
        task = make_task(assignment.task, tokenizer, labels=assignment.labels, max_length=plan.max_length)
        model = get_method(plan.method).attach(base, plan.options, task=assignment.task, seed=plan.seed)
    except ValueError as error:
        raise Refused(
            "not_trainable", f"The method {plan.method!r}, this task and this model do not fit: {error}."
        ) from error
    try:
        model.to(pick_device(settings.device))
    except RuntimeError as error:
        log.error("job %s: device %s: %s", assignment.job_id, settings.device, describe(error))
        raise Refused("out_of_memory", "The model does not fit onto this worker's device.") from error
    return Built(model, task, tokenizer, known.revision, known.source, known.folder)


def pick_device(wanted: str) -> torch.device:
    """The device that a setting names; `auto` is the first GPU where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)
