"""A classifier's head starts from what the public model knows of its labels' words, and from nothing else."""

import pytest
import torch

from benchmarks.training.jobs import BUILT_IN
from dpcore.methods import get_trainer
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import make_task
from dpcore.terms.label_words import are_words, words_of
from dpcore.terms.methods import get_method
from dpcore.word_head import start_from_words

TEXTS = {
    "lost_or_stolen_card": ["Somebody took my card", "I cannot find my bank card anywhere"],
    "exchange_rate": ["How many euros do I get for a pound?", "What does it cost to change currency"],
    "forgotten_passcode": ["I do not remember my secret number", "how can I log in, my password is gone"],
    "top_up_failed": ["My top up was declined", "adding money did not work"],
}
LABELS = ("w3", "w11", "w40")


@pytest.mark.parametrize("method", ["lora", "bitfit", "reversible", "side"])
def test_labels_that_are_words_are_told_apart_before_the_first_step(method):
    """Also where the method brings a head of its own."""
    labels = tuple(TEXTS)
    base = build_model("classification", BUILT_IN, labels, seed=0, words=True)
    options = get_method(method).Options().model_dump(mode="json")
    model = get_trainer(method).attach(base, options, task="classification", seed=0)
    tokenizer = load_tokenizer(BUILT_IN)
    assert start_from_words(model, tokenizer, labels)
    task = make_task("classification", tokenizer, labels=labels, max_length=64)
    texts = [text for some in TEXTS.values() for text in some]
    wanted = [i for i, some in enumerate(TEXTS.values()) for _ in some]
    assert task.metrics(model, {"text": texts}, wanted)["accuracy"] >= 0.875


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "gpt2", "llama"])
def test_every_kind_of_head_answers_a_label_s_words_with_the_label(name, make_base, tokenizer):
    model = make_base(name, layers=2)
    if name == "roberta":
        model.config.pad_token_id = 1
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    assert start_from_words(model, tokenizer, LABELS)
    assert torch.equal(torch.random.get_rng_state(), state), "nothing is drawn"
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.endswith((".weight", ".bias")) for key in changed)
    assert {key.rpartition(".")[0] for key in changed} == {next(iter(changed)).rpartition(".")[0]}, "one layer"
    for i, label in enumerate(LABELS):
        ids = tokenizer(label, return_tensors="pt")["input_ids"]
        assert int(model(input_ids=ids).logits.argmax()) == i
    again = {key: value.clone() for key, value in model.state_dict().items()}
    assert start_from_words(model, tokenizer, LABELS)
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items()), "the same once more"


def test_a_head_stays_as_it_was_where_words_say_nothing(make_base, tokenizer):
    """Labels that the tokenizer does not know are one and the same to the model, and so are those of other numbers."""
    model = make_base("bert")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert not start_from_words(model, tokenizer, ("unheard", "unseen", "unsaid"))
    assert not start_from_words(model, tokenizer, ("w3", "w11")), "no layer has two rows"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_labels_are_words_or_only_names():
    assert words_of("card_arrival") == "card arrival"
    assert words_of("Refund-not_showing/up ") == "Refund not showing up"
    assert are_words("classification", ("neg", "pos"))
    assert are_words("classification", ("café", "thé"))
    for labels in (("0", "1"), ("LABEL_0", "LABEL_1"), ("a", "b"), ("stage 1", "stage 2"), ("yes", "YES")):
        assert not are_words("classification", labels), labels
    assert not are_words("pair", ("entailment", "contradiction")), "what a pair's label says is said of no text"
    assert not are_words("text", ())
