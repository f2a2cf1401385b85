"""What leaves is an adapter that stock transformers and peft load, with the same logits."""

import json
import os
import stat

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from dpcore.export import export_adapter, load_adapter
from dpcore.methods import get_method
from dpcore.models import build_classifier, load_tokenizer
from dpcore.tasks.sequence_classification import SequenceClassification

from .conftest import LABELS, MAX_LENGTH, WORDS
from .test_train import Host, make_plan

TEXTS = [" ".join(WORDS[i : i + n]) for i, n in enumerate([1, 2, 5, 9, 13, 30])]
NAME = "example/tiny-encoder"


@pytest.fixture
def trained(base_folder):
    """A model that was built, adapted and trained the way a job does it, with its task."""
    task = SequenceClassification(load_tokenizer(base_folder), LABELS, MAX_LENGTH)
    model = get_method("lora").attach(build_classifier(base_folder, LABELS, seed=1), {"r": 2}, seed=1)
    records = task.encode([WORDS[i % 60] for i in range(50)], [LABELS[i % 3] for i in range(50)])
    Host().run(model, task, records, make_plan(learning_rate=0.1))
    return model, task


def test_stock_peft_gives_the_same_logits(trained, base_folder, tmp_path):
    model, task = trained
    expected = task.logits(model, TEXTS)
    export_adapter(model, tmp_path / "adapter", base_model_name=NAME, tokenizer=load_tokenizer(base_folder))
    # What a reader does: nothing here is Tacit's.
    base = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=len(LABELS))
    stock = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    tokenizer = load_tokenizer(tmp_path / "adapter")
    for text, row in zip(TEXTS, expected, strict=True):
        encoded = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with torch.no_grad():
            logits = stock(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits[0]
        torch.testing.assert_close(logits, row, rtol=0, atol=1e-5)
    untouched = build_classifier(base_folder, LABELS, seed=1)
    assert (task.logits(untouched, TEXTS) - expected).abs().max() > 1e-2


def test_own_loader_gives_the_same_logits_whatever_the_fresh_head(trained, base_folder, tmp_path):
    model, task = trained
    export_adapter(model, tmp_path / "adapter", base_model_name=NAME)
    loaded = load_adapter(build_classifier(base_folder, LABELS, seed=99), tmp_path / "adapter")
    torch.testing.assert_close(task.logits(loaded, TEXTS), task.logits(model, TEXTS), rtol=0, atol=1e-5)


def test_config_names_the_public_base_and_no_path(trained, base_folder, tmp_path):
    model, _ = trained
    export_adapter(model, tmp_path / "adapter", base_model_name=NAME)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == NAME
    assert config["peft_type"] == "LORA"
    assert config["task_type"] == "SEQ_CLS"
    for file in (tmp_path / "adapter").iterdir():
        assert str(base_folder).encode() not in file.read_bytes(), file.name
    with pytest.raises(ValueError, match="public name"):
        export_adapter(model, tmp_path / "other", base_model_name=str(base_folder))


def test_adapter_holds_the_trained_tensors_and_no_others(trained, tmp_path):
    model, _ = trained
    export_adapter(model, tmp_path / "adapter", base_model_name=NAME)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    trained_values = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(t.numel() for t in saved.values()) == trained_values


def test_file_modes_follow_the_umask(trained, tmp_path):
    model, _ = trained
    before = os.umask(0o027)
    try:
        export_adapter(model, tmp_path / "adapter", base_model_name=NAME)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "adapter").iterdir()}
    assert modes == {0o640}


def test_head_of_two_layers_is_exported_whole(make_base, tmp_path, task):
    """DistilBERT's new head has two layers; the default of PEFT saves one of them."""
    model = get_method("lora").attach(make_base("distilbert"), {"r": 2}, seed=0)
    export_adapter(model, tmp_path / "adapter", base_model_name=NAME)
    assert any("pre_classifier" in key for key in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))


def test_base_that_lacks_weights_is_refused(base_folder, make_base):
    """An adapter cannot carry the random values that would stand in for them."""
    base = make_base(layers=2).base_model
    state = {k: v for k, v in base.state_dict().items() if "pooler" not in k}
    base.save_pretrained(base_folder, state_dict=state)
    with pytest.raises(ValueError, match=r"lacks weights: bert\.pooler"):
        build_classifier(base_folder, LABELS, seed=0)


def test_seed_drives_initialisation_and_leaves_the_global_generator_alone(base_folder):
    torch.manual_seed(4)
    before = torch.get_rng_state()

    def build(seed):
        model = get_method("lora").attach(build_classifier(base_folder, LABELS, seed=seed), {"r": 2}, seed=seed)
        return {n: p for n, p in model.named_parameters() if p.requires_grad}

    first, again, other = build(1), build(1), build(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


def test_labels_are_in_the_models_configuration(base_folder):
    assert build_classifier(base_folder, LABELS, seed=0).config.id2label == dict(enumerate(LABELS))


def test_auto_class_of_peft_loads_the_folder(trained, base_folder, tmp_path):
    """With the base at hand under its name, one call is enough: the number of labels is known."""
    model, task = trained
    export_adapter(model, tmp_path / "adapter", base_model_name=NAME)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(base_folder)  # stands for the download
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=3).eval()
    torch.testing.assert_close(task.logits(loaded, TEXTS), task.logits(model, TEXTS), rtol=0, atol=1e-5)
