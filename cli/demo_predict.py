"""What anyone does with a result: stock transformers and peft, and nothing of Tacit. Run by its path.

    python demo_predict.py BASE ADAPTER ROWS ABOUT

ABOUT is {"labels": [...], "max_length": n, "causal": false, "pictures": false, "texts": ["text"]}. ROWS is JSONL: texts
and label, or a picture's path as text; or, for a language model, ids and which of them are targets. Prints one JSON
object.
"""

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    logging,
)

BATCH = 64
FRESH_HEADS = 3  # the untrained classifier is the mean over so many random heads: one alone may be lucky


def main(base: str, adapter: Path, rows: list[dict[str, Any]], about: dict[str, Any]) -> dict[str, object]:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if about["causal"]:
        rows.sort(key=lambda row: len(row["ids"]))
        count = sum(sum(row["targets"][1:]) for row in rows)
        untrained, trained = (perplexity(load(base, adapter, about, new), rows, count) for new in (True, False))
        return {"perplexity": trained, "perplexity_untrained": untrained, "evaluated": count}
    rows.sort(key=lambda row: len(row[about["texts"][0]]))
    wanted = torch.tensor([about["labels"].index(row["label"]) for row in rows])
    reader = (AutoImageProcessor if about["pictures"] else AutoTokenizer).from_pretrained(adapter)
    about["padding"] = None if about["pictures"] else reader.pad_token_id

    def accuracy(model: Any) -> float:
        return right(model, reader, rows, wanted, about) / len(rows)

    untrained = sum(accuracy(load(base, adapter, about, True, seed)) for seed in range(FRESH_HEADS)) / FRESH_HEADS
    trained = accuracy(load(base, adapter, about, False))
    majority = wanted.bincount().max().item() / len(rows)
    return {"accuracy": trained, "accuracy_untrained": untrained, "majority": majority, "evaluated": len(rows)}


def load(base: str, adapter: Path, about: dict[str, Any], untrained: bool, seed: int = 0) -> Any:
    """The base model, or what the job made of it: an adapter for PEFT, tensors with their loader, or a whole model."""
    auto = AutoModelForCausalLM if about["causal"] else AutoModelForSequenceClassification
    head = {} if about["causal"] else {"num_labels": len(about["labels"]), "pad_token_id": about["padding"]}
    if about["pictures"]:
        auto, head = AutoModelForImageClassification, {"num_labels": len(about["labels"])}
        head["ignore_mismatched_sizes"] = True  # the base has a head of other labels
    if not untrained and (adapter / "trained.safetensors").exists():
        spec = importlib.util.spec_from_file_location("load", adapter / "load.py")
        assert spec is not None
        assert spec.loader is not None
        loader = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loader)
        return loader.load(base, adapter)
    whole = not untrained and not (adapter / "adapter_config.json").exists()
    torch.manual_seed(seed)
    model = auto.from_pretrained(adapter if whole else base, local_files_only=True, dtype=torch.float32, **head).eval()
    return model if untrained or whole else PeftModel.from_pretrained(model, adapter).eval()


@torch.no_grad()
def right(model: Any, reader: Any, rows: list[dict[str, Any]], wanted: torch.Tensor, about: dict[str, Any]) -> int:
    total = 0
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        texts = [[row[name] for row in some] for name in about["texts"]]
        if about["pictures"]:
            inputs = reader([Image.open(path).convert("RGB") for path in texts[0]], return_tensors="pt")
        else:
            cut = {"padding": True, "truncation": True, "max_length": about["max_length"]}
            inputs = reader(*texts, **cut, return_tensors="pt")
        total += int((model(**inputs).logits.argmax(-1) == wanted[start : start + BATCH]).sum())
    return total


@torch.no_grad()
def perplexity(model: Any, rows: list[dict[str, Any]], count: int) -> float:
    total = 0.0
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        ids = pad_sequence([torch.tensor(row["ids"]) for row in some], batch_first=True)
        targets = pad_sequence([torch.tensor(row["targets"]) for row in some], batch_first=True)[:, 1:] == 1
        mask = pad_sequence([torch.ones(len(row["ids"]), dtype=torch.long) for row in some], batch_first=True)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        total += float(cross_entropy(logits[targets], ids[:, 1:][targets], reduction="sum"))
    return math.exp(total / count)


if __name__ == "__main__":
    base, adapter, rows, about = sys.argv[1:]
    with open(rows, encoding="utf-8") as file:
        result = main(base, Path(adapter), [json.loads(line) for line in file], json.loads(about))
    ours = {"api", "cli", "domain", "dpcore", "ledger", "worker"}
    sys.stdout.write(json.dumps(result | {"tacit_modules": sorted(ours & set(sys.modules))}) + "\n")
