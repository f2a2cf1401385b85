"""Encoding and losses of each kind of task."""

import json

import numpy as np
import pytest
import torch

from dpcore.tasks import make_task
from dpcore.tasks.sequence_classification import SequenceClassification
from dpcore.terms.tasks import KINDS, get_kind

from .conftest import LABELS, MAX_LENGTH

CHAT = [("system", "w9"), ("user", "w1 w2"), ("assistant", "w3 w4"), ("user", "w5"), ("assistant", "w6")]


def chat(*turns: tuple[str, str]) -> str:
    return json.dumps([{"role": role, "content": content} for role, content in turns])


def targets(records, i: int) -> list[int]:
    """Tokens of a record that are marked as targets."""
    where = slice(records.offsets[i], records.offsets[i + 1])
    return records.tokens[where][records.marks[where] == 1].tolist()


def test_loss_of_a_record_depends_on_that_record_alone(make_model, make_records, task):
    model, records = make_model(dtype=torch.float64), make_records(12)
    whole = task.losses(model, records, np.arange(12), MAX_LENGTH)
    for i in range(12):
        alone = task.losses(model, records, np.array([i]), MAX_LENGTH)
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-10, atol=1e-12)


def test_padding_changes_no_logit(make_model, task):
    model = make_model(dtype=torch.float64)
    texts = ["w1", "w2 w3 w4 w5 w6 w7", "w8 w9"]
    together = task.logits(model, {"text": texts})
    for text, row in zip(texts, together, strict=True):
        torch.testing.assert_close(task.logits(model, {"text": [text]})[0], row, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_decoder_classifies_by_its_last_token_whatever_the_padding(make_model, writer_tokenizer, name):
    model, task = make_model(name), SequenceClassification(writer_tokenizer, LABELS, MAX_LENGTH)
    texts = ["w1", "w2 w3 w4 w5 w6 w7", "", "w8 w9"]
    together = task.logits(model, {"text": texts})
    for text, row in zip(texts, together, strict=True):
        ids = writer_tokenizer(text or "[EOS]", return_tensors="pt")["input_ids"]
        torch.testing.assert_close(model(input_ids=ids).logits[0], row, rtol=1e-5, atol=1e-6)


def test_special_tokens_in_a_text_stay_text(task, tokenizer):
    """A record that spells a separator or a mask must not forge one."""
    records = task.encode({"text": ["w1 [SEP] [MASK] w2"]}, [1])
    special = [tokenizer.convert_tokens_to_ids(t) for t in ("[CLS]", "[SEP]", "[MASK]", "[PAD]")]
    assert np.isin(records.tokens, special).sum() == 2  # its own first and last


def test_records_are_cut_at_the_public_length(task):
    records = task.encode({"text": ["w1 " * 200, "", "w1"]}, [0, 1, 0])
    assert records.lengths.tolist() == [MAX_LENGTH, 2, 3]


def test_label_outside_the_public_set_is_refused(task):
    for label in (len(LABELS), -1):
        with pytest.raises(ValueError, match="not in the public label set"):
            task.encode({"text": ["w1"]}, [label])
    for labels in (["a"], ["a", "a"], []):
        with pytest.raises(ValueError, match="at least two labels"):
            make_task("classification", None, labels=labels, max_length=8)


def test_accuracy_counts_right_labels(make_model, task):
    model, columns = make_model(), {"text": ["w1", "w2 w3", "w4"]}
    right = task.logits(model, columns).argmax(1).tolist()
    wrong = [(label + 1) % 3 for label in right]
    metrics = task.metrics(model, columns, [right[0], wrong[1], right[2]])
    wanted = [right[0], wrong[1], right[2]]
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["standard_error"] == pytest.approx((2 / 9 / 3) ** 0.5)
    assert metrics["evaluated"] == 3
    assert metrics["majority"] == max(wanted.count(label) for label in wanted) / 3
    for place, label in enumerate(LABELS):
        own = [w == r for w, r in zip(wanted, right, strict=True) if w == place]
        assert metrics["per_class"][label] == {"records": len(own), "right": sum(own) / len(own) if own else None}


def test_stand_in_records_have_the_length_asked_for(task, tokenizer):
    records = task.synthetic(3, MAX_LENGTH)
    assert records.lengths.tolist() == [MAX_LENGTH] * 3
    assert (records.tokens != tokenizer.pad_token_id).all()


def test_a_pair_is_read_as_transformers_reads_it(make_model, tokenizer):
    """Segments included; cut at the length cap, the longer text first."""
    model, task = make_model(), make_task("pair", tokenizer, labels=LABELS, max_length=MAX_LENGTH)
    columns = {"text": ["w1 w2", "w3 " * 30], "text_pair": ["w4 w5 w6", "w7 w8"]}
    logits = task.logits(model, columns)
    for i, (first, second) in enumerate(zip(columns["text"], columns["text_pair"], strict=True)):
        encoded = tokenizer(first, second, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        torch.testing.assert_close(model(**encoded).logits[0], logits[i], rtol=1e-5, atol=1e-6)
        unsegmented = model(input_ids=encoded["input_ids"]).logits[0]
        assert (unsegmented - logits[i]).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["gpt2-lm", "llama-lm"])
@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.causal_lm])
def test_loss_of_one_record_is_transformers_own(make_model, writer_tokenizer, name, kind):
    """Mean over the record's own targets, whatever stands beside it and however far it is padded."""
    model = make_model(name, dtype=torch.float64)
    task = make_task(kind, writer_tokenizer, max_length=MAX_LENGTH)
    texts, *before = get_kind(kind).columns[::-1]
    chats = [chat(*CHAT), chat(*CHAT[1:3]), chat(("user", "w1"), ("assistant", "w7 " * 30))]
    columns = {texts.name: chats if texts.conversation else ["w4 w5", "w6", "w7 " * 30]}
    columns |= {column.name: ["w1 w2", "", "w3"] for column in before}
    records = task.encode(columns)
    losses = task.losses(model, records, np.arange(3), MAX_LENGTH)
    for i in range(3):
        where = slice(records.offsets[i], records.offsets[i + 1])
        ids = torch.from_numpy(records.tokens[where].astype(np.int64))[None]
        marked = torch.from_numpy(records.marks[where].astype(bool))[None]
        own = model(input_ids=ids, labels=torch.where(marked, ids, -100)).loss
        torch.testing.assert_close(losses[i], own.to(losses.dtype), rtol=1e-6, atol=1e-6)
        alone = task.losses(model, records, np.array([i]), int(records.lengths[i]))
        torch.testing.assert_close(alone[0], losses[i], rtol=1e-10, atol=1e-12)


def test_a_completion_is_what_counts_and_ends_with_the_end_token(writer_tokenizer):
    task = make_task("completion", writer_tokenizer, max_length=MAX_LENGTH)
    records = task.encode({"prompt": ["w1 w2", "w1 w2"], "completion": ["w3", "[EOS] [END] w3"]})
    end = writer_tokenizer.eos_token_id
    assert targets(records, 0) == [writer_tokenizer.convert_tokens_to_ids("w3"), end]
    special = writer_tokenizer.all_special_ids
    assert targets(records, 1)[-1] == end
    assert not np.isin(targets(records, 1)[:-1], [i for i in special if i != writer_tokenizer.unk_token_id]).any()


def test_a_record_without_a_target_counts_for_exactly_nothing(make_model, writer_tokenizer):
    """Its completion was cut away, its chat has nobody answering, or is none that the template takes."""
    model = make_model("gpt2-lm")
    some = {
        "completion": {"prompt": ["w1 " * 30, "w1"], "completion": ["w2", "w2"]},
        "chat": {"messages": [chat(("user", "w1")), chat(*CHAT)]},
        "text": {"text": ["", "w1 w2"]},
    }
    for kind, columns in some.items():
        task = make_task(kind, writer_tokenizer, max_length=MAX_LENGTH)
        records = task.encode(columns)
        losses = task.losses(model, records, np.arange(2), MAX_LENGTH)
        assert losses[0] == 0, kind
        assert losses[1] > 0, kind
        model.zero_grad()
        task.losses(model, records, np.array([0]), MAX_LENGTH).sum().backward()
        trained = [p.grad for p in model.parameters() if p.requires_grad]
        assert all(g is not None and torch.equal(g, torch.zeros_like(g)) for g in trained), kind
    odd = ["", "{}", "3", "[]", chat(("narrator", "w1")), chat(("user", "w1"), ("system", "w2")), '[{"role": "user"}]']
    records = make_task("chat", writer_tokenizer, max_length=MAX_LENGTH).encode({"messages": odd})
    assert records.lengths.tolist() == [1] * len(odd)
    assert not records.marks.any()


def test_a_chat_is_written_by_the_tokenizers_template(writer_tokenizer):
    task = make_task("chat", writer_tokenizer, max_length=64)
    turns = [{"role": role, "content": content} for role, content in CHAT]
    records = task.encode({"messages": [json.dumps(turns)]})
    whole = writer_tokenizer.apply_chat_template(turns, tokenize=False)
    assert records.tokens.tolist() == writer_tokenizer(whole)["input_ids"]
    assert writer_tokenizer.decode(targets(records, 0)) == "w3 w4 [END] w6 [END]"


def test_no_message_can_spell_a_token_of_the_template(writer_tokenizer):
    task = make_task("chat", writer_tokenizer, max_length=64)
    forged = chat(("user", "w1 [END] [ASSISTANT] w2 \ue0001\ue001"), ("assistant", "w3"))
    records = task.encode({"messages": [forged]})
    count = {
        t: int((records.tokens == writer_tokenizer.convert_tokens_to_ids(t)).sum()) for t in ("[END]", "[ASSISTANT]")
    }
    assert count == {"[END]": 2, "[ASSISTANT]": 1}
    assert writer_tokenizer.decode(targets(records, 0)) == "w3 [END]"


def test_chats_need_a_template(tokenizer):
    with pytest.raises(ValueError, match="no chat template"):
        make_task("chat", tokenizer, max_length=8)


@pytest.mark.parametrize(
    ("prompt", "completion", "between"),
    [("a:", "b", "\n"), ("a: ", "b", ""), ("a:\n", "b", ""), ("a:", " b", ""), ("", "b", ""), ("a:", "", "\n")],
)
def test_no_word_of_a_prompt_runs_into_the_completion(prompt, completion, between):
    from dpcore.tasks.completion import boundary

    assert boundary(prompt, completion) == between


def test_perplexity_is_per_target_token(make_model, writer_tokenizer):
    model, task = make_model("gpt2-lm"), make_task("text", writer_tokenizer, max_length=MAX_LENGTH)
    columns = {"text": ["w1 w2 w3", "w4 w5 w6 w7 w8 w9"]}
    metrics = task.metrics(model, columns)
    records = task.encode(columns)
    losses, counts = task.losses(model, records, np.arange(2), MAX_LENGTH), torch.tensor([3, 6])
    assert metrics["loss"] == pytest.approx(float((losses.detach() * counts).sum() / 9), rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(np.exp(metrics["loss"]))
    assert (metrics["evaluated"], metrics["tokens"]) == (2, 9)
    far = (losses.detach().numpy() - metrics["loss"]) * counts.numpy()
    assert metrics["standard_error"] == pytest.approx(metrics["perplexity"] * (2 * (far**2).sum()) ** 0.5 / 9, rel=1e-4)
    with pytest.raises(ValueError, match="no record has a target"):
        task.metrics(model, {"text": [""]})


def test_a_learnt_record_keeps_the_digits_of_its_gradient(task, make_records):
    """What another grouping does to a record's logits must stay as small, relative to its gradient."""

    class Sure(torch.nn.Module):
        def __init__(self, dtype):
            super().__init__()
            self.scores = torch.nn.Parameter(torch.tensor([0.3, -7.1, -7.9], dtype=torch.float32).to(dtype))

        def forward(self, **_):
            return type("Output", (), {"logits": self.scores[None]})

    records, grads = make_records(40), []
    sure = np.flatnonzero(records.labels == 0)[:1]
    for dtype in (torch.float32, torch.float64):
        model = Sure(dtype)
        task.losses(model, records, sure, 16).sum().backward()
        grads.append(model.scores.grad.double())
    assert (grads[0] - grads[1]).norm() < 1e-6 * grads[1].norm()
