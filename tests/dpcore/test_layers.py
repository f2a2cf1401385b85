"""A model with only some of its layers: its own class, numbered anew, and the same for stock readers."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dpcore.methods.layers import find_layers, only_layers
from dpcore.models import build_model, fresh_in_base
from dpcore.terms.errors import FieldError
from dpcore.terms.layers import evenly, kept

from . import zoo
from .conftest import LABELS

SHAPES = {
    "bert": ("classification", "bert.encoder.layer"),
    "gpt2": ("completion", "transformer.h"),
    "llama": ("completion", "model.layers"),
    "distilbert": ("classification", "distilbert.transformer.layer"),
    "qwen2": ("completion", "model.layers"),
    "gemma2": ("completion", "model.layers"),
    "opt": ("completion", "model.decoder.layers"),
}
DEEP = {name: "num_hidden_layers" for name in SHAPES} | {"gpt2": "n_layer", "distilbert": "n_layers"}


def deep(name, task, layers=4, **more):
    model = zoo.build(name, task, **{DEEP.get(name, "num_hidden_layers"): layers}, **more)
    with torch.no_grad():  # biases and norms are all alike when they are new
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return model


@pytest.mark.parametrize("name", SHAPES)
def test_the_layers_that_stay_are_all_that_is_run_here_and_by_stock_readers(name, tmp_path):
    task, path = SHAPES[name]
    model = deep(name, task)
    assert find_layers(model)[0] == path
    made = only_layers(model, [0, 1, 3])
    assert type(made) is type(model)
    assert made.config.num_hidden_layers == 3
    ids = zoo.step_ids(2)
    logits = made(input_ids=ids).logits
    made.save_pretrained(tmp_path)
    auto = AutoModelForCausalLM if task == "completion" else AutoModelForSequenceClassification
    torch.testing.assert_close(auto.from_pretrained(tmp_path).eval()(input_ids=ids).logits, logits)
    # The old model with the third layer taken out by hand.
    parent, _, leaf = path.rpartition(".")
    layers = [layer for number, layer in enumerate(model.get_submodule(path)) if number != 2]
    setattr(model.get_submodule(parent), leaf, torch.nn.ModuleList(layers))
    model.config.num_hidden_layers = 3
    cache = {"use_cache": False} if task == "completion" else {}
    torch.testing.assert_close(model(input_ids=ids, **cache).logits, logits)
    # Weights of its own, all of which train.
    assert not {p.data_ptr() for p in made.parameters()} & {p.data_ptr() for p in model.parameters()}
    assert all(p.requires_grad for p in made.parameters())


def test_all_layers_are_the_model_to_the_bit():
    model = deep("llama", "completion")
    made = only_layers(model, range(4))
    ids = zoo.step_ids(2)
    assert torch.equal(made(input_ids=ids).logits, model(input_ids=ids).logits)


def test_what_is_told_by_layer_in_the_configuration_is_cut_alike():
    model = deep("smollm3", "completion", no_rope_layers=[1, 0, 1, 0])
    made = only_layers(model, [1, 2])
    assert made.config.no_rope_layers == [0, 1]
    assert [bool(layer.self_attn.use_rope) for layer in made.model.layers] == [False, True]
    gemma = deep("gemma2", "completion", layer_types=["sliding_attention", "full_attention"] * 2)
    assert only_layers(gemma, [0, 2]).config.layer_types == ["sliding_attention"] * 2


def test_a_pooler_that_is_new_is_new_in_the_smaller_model(make_base, tokenizer, tmp_path):
    """It trains and leaves with the head."""
    base = make_base(layers=2)
    base.bert.pooler = None
    base.bert.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = build_model("classification", tmp_path, LABELS, seed=0)
    assert fresh_in_base(only_layers(model, [0])) == fresh_in_base(model) == ("bert.pooler",)


@pytest.mark.parametrize(
    ("name", "layers", "words"),
    [
        ("albert", [0], "the layers of AlbertForSequenceClassification cannot be found"),
        ("bart", [0], "more than one list of 2 layers"),
        ("funnel", [0], "cannot be built of layers 0 alone"),
        ("modernbert", [1], "cannot be built of layers 1 alone"),
        ("bert", [0, 0], "each once"),
        ("bert", [2], "each once"),
        ("bert", [], "name some"),
    ],
)
def test_what_cannot_be_left_out_is_refused_with_words(name, layers, words):
    with pytest.raises(ValueError, match=words):
        only_layers(zoo.build(name, "classification"), layers)


def test_layers_are_chosen_evenly_with_the_first_and_the_last():
    assert [evenly(count, 6) for count in range(1, 7)] == [
        (0,),
        (0, 5),
        (0, 3, 5),
        (0, 2, 3, 5),
        (0, 1, 3, 4, 5),
        (0, 1, 2, 3, 4, 5),
    ]
    for of in range(1, 50):
        for count in range(1, of + 1):
            chosen = evenly(count, of)
            assert len({*chosen}) == count
            assert chosen[0] == 0
            assert count == 1 or chosen[-1] == of - 1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (0, "name 1 to 6"),
        (7, "7 of the model's 6 layers"),
        ((), "no layer is named"),
        ((0, 6), "no layer 6; its layers are 0 to 5"),
        ((-1, 2), "no layer -1"),
        ((1, 1, 2), r"each layer once, in the model's order, such as \[1, 2\]"),
        ((3, 1), "each layer once"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_by_field(asked, words):
    with pytest.raises(FieldError, match=words) as caught:
        kept("student_layers", asked, 6)
    assert caught.value.field == "student_layers"


def test_a_choice_is_a_number_or_a_list():
    assert kept("keep", 3, 6) == (0, 3, 5)
    assert kept("keep", (1, 4), 6) == (1, 4)
