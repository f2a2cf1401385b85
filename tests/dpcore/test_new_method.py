"""A new method is two files found by their name: nothing else knows it."""

import torch

from dpcore.export import About
from dpcore.methods import get_trainer, load_export
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import make_task
from dpcore.terms.methods import get_method, method_names

from .conftest import LABELS, MAX_LENGTH
from .test_train import Host, make_program

SPEC = '''
"""A classifier's last layer."""
from dpcore.terms.methods.bitfit import Options, Request, check, memory, phases, resolve, trainable
'''
METHOD = """
from dpcore.export import export_trained as export, load_trained as load
from dpcore.methods.heads import head_modules
from dpcore.methods.plain import begin, between, learns


def attach(model, options, *, task, seed):
    model.requires_grad_(False)
    for name in head_modules(model):
        model.get_submodule(name).requires_grad_(True)
    return model
"""


def test_two_files_are_a_method(plant, base_folder, make_records, task, tmp_path):
    plant("last_layer", SPEC, METHOD)
    assert "last-layer" in method_names()
    assert get_method("last-layer").Options().model_dump(mode="json") == {}
    base = build_model("classification", base_folder, LABELS, seed=0)
    model = get_trainer("last-layer").attach(base, {}, task="classification", seed=0)
    host = Host()
    host.run(model, task, make_records(40), make_program(steps=2, method="last-layer", learning_rate=0.1))
    assert len(host.saved) == 2
    about = About("example/tiny", "0" * 64, "last-layer", "classification", LABELS, MAX_LENGTH)
    get_trainer("last-layer").export(model, tmp_path / "export", about, tokenizer=load_tokenizer(base_folder))
    loaded, read = load_export(tmp_path / "export", base_folder)
    assert read == about
    columns = {"text": ["w1 w2", "w3"]}
    again = make_task("classification", load_tokenizer(tmp_path / "export"), labels=LABELS, max_length=MAX_LENGTH)
    torch.testing.assert_close(again.logits(loaded, columns), task.logits(model, columns))
    untouched = build_model("classification", base_folder, LABELS, seed=0)
    assert (task.logits(untouched, columns) - task.logits(model, columns)).abs().max() > 1e-3
