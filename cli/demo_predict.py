"""What anyone does with an adapter: stock transformers and peft, and nothing of Tacit. Run by its path.

    python demo_predict.py BASE ADAPTER ROWS LABELS MAX_LENGTH

ROWS is a JSONL file with text and label, LABELS a JSON list in the order of the classes. Prints one JSON object.
"""

import json
import sys

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

BATCH = 64
FRESH_HEADS = 3  # the untrained model is the mean over so many random heads: one alone may be lucky


def main(base: str, adapter: str, rows: str, labels: list[str], max_length: int) -> dict[str, object]:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    with open(rows, encoding="utf-8") as file:
        records = sorted((json.loads(line) for line in file), key=lambda record: len(record["text"]))
    wanted = torch.tensor([labels.index(record["label"]) for record in records])

    def fresh(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=len(labels), local_files_only=True, dtype=torch.float32
        ).eval()

    @torch.no_grad()
    def accuracy(model: nn.Module) -> float:
        right = 0
        for start in range(0, len(records), BATCH):
            texts = [record["text"] for record in records[start : start + BATCH]]
            inputs = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
            right += int((model(**inputs).logits.argmax(-1) == wanted[start : start + BATCH]).sum())
        return right / len(records)

    untrained = sum(accuracy(fresh(seed)) for seed in range(FRESH_HEADS)) / FRESH_HEADS
    trained = accuracy(PeftModel.from_pretrained(fresh(0), adapter).eval())
    majority = wanted.bincount().max().item() / len(records)
    return {"accuracy": trained, "accuracy_untrained": untrained, "majority": majority, "evaluated": len(records)}


if __name__ == "__main__":
    base, adapter, rows, labels, max_length = sys.argv[1:]
    result = main(base, adapter, rows, json.loads(labels), int(max_length))
    ours = {"api", "cli", "domain", "dpcore", "ledger", "worker"}
    sys.stdout.write(json.dumps(result | {"tacit_modules": sorted(ours & set(sys.modules))}) + "\n")
