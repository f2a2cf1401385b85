"""Encoding and losses of sequence classification."""

import numpy as np
import pytest
import torch

from dpcore.tasks.sequence_classification import SequenceClassification

from .conftest import LABELS, MAX_LENGTH


def test_loss_of_a_record_depends_on_that_record_alone(make_model, make_records, task):
    model, records = make_model(dtype=torch.float64), make_records(12)
    whole = task.losses(model, records, np.arange(12), MAX_LENGTH)
    for i in range(12):
        alone = task.losses(model, records, np.array([i]), MAX_LENGTH)
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-10, atol=1e-12)


def test_padding_changes_no_logit(make_model, task):
    model = make_model(dtype=torch.float64)
    texts = ["w1", "w2 w3 w4 w5 w6 w7", "w8 w9"]
    together = task.logits(model, texts)
    for text, row in zip(texts, together, strict=True):
        torch.testing.assert_close(task.logits(model, [text])[0], row, rtol=1e-6, atol=1e-6)


def test_special_tokens_in_a_text_stay_text(task, tokenizer):
    """A record that spells a separator or a mask must not forge one."""
    records = task.encode(["w1 [SEP] [MASK] w2"], ["yes"])
    special = [tokenizer.convert_tokens_to_ids(t) for t in ("[CLS]", "[SEP]", "[MASK]", "[PAD]")]
    assert np.isin(records.tokens, special).sum() == 2  # its own first and last


def test_records_are_cut_at_the_public_length(task):
    records = task.encode(["w1 " * 200, "", "w1"], ["no", "yes", "no"])
    assert records.lengths.tolist() == [MAX_LENGTH, 2, 3]


def test_unknown_label_is_refused_without_naming_it(task):
    with pytest.raises(ValueError, match="not in the public label set") as caught:
        task.encode(["w1"], ["a private label"])
    assert "private label" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_label_order_is_the_public_one(tokenizer, task):
    assert task.encode(["w1"] * 3, list(LABELS)).labels.tolist() == [0, 1, 2]
    for labels in (["a"], ["a", "a"], []):
        with pytest.raises(ValueError, match="at least two labels"):
            SequenceClassification(tokenizer, labels, 8)


def test_accuracy_counts_right_labels(make_model, task):
    model = make_model()
    predicted = task.predict(model, ["w1", "w2 w3", "w4"])
    wrong = [LABELS[(LABELS.index(p) + 1) % 3] for p in predicted]
    assert task.accuracy(model, ["w1", "w2 w3", "w4"], [predicted[0], wrong[1], predicted[2]]) == pytest.approx(2 / 3)


def test_stand_in_records_have_the_length_asked_for(task, tokenizer):
    records = task.synthetic(3, MAX_LENGTH)
    assert records.lengths.tolist() == [MAX_LENGTH] * 3
    assert (records.tokens != tokenizer.pad_token_id).all()
