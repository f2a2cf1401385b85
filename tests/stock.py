"""What a reader of an export does, as a program of its own: stock transformers and peft, or the loader in the folder.

stock.py BASE EXPORT TEXTS CUT LABELS: prints each text's logits, those of PEFT's automatic class where the folder says
which commit of which repository it belongs to, and which modules of Tacit's were loaded.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

base, export = sys.argv[1:3]
texts, cut, labels = json.loads(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])


def stock(folder: str) -> torch.nn.Module:
    if labels:
        return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels).eval()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


torch.manual_seed(0)
if (Path(export) / "adapter_config.json").exists():
    from peft import PeftModel

    model = PeftModel.from_pretrained(stock(base), export).eval()
elif (Path(export) / "load.py").exists():
    sys.path.insert(0, export)
    from load import load

    model = load(base)
else:
    model = stock(export)
tokenizer = AutoTokenizer.from_pretrained(export)


def logits(model: torch.nn.Module) -> list[list[float]]:
    out = []
    for text in texts:
        encoded = tokenizer(text, truncation=True, max_length=cut, return_tensors="pt")
        with torch.no_grad():
            output = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
        out.append(output.logits[0].tolist())
    return out


seen = {"logits": logits(model)}
config = Path(export) / "adapter_config.json"
if config.exists() and json.loads(config.read_text())["revision"]:
    from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification

    if labels:
        found = AutoPeftModelForSequenceClassification.from_pretrained(export, num_labels=labels)
    else:
        found = AutoPeftModelForCausalLM.from_pretrained(export)
    seen["found"] = logits(found.eval())
seen["ours"] = [m for m in sys.modules if m.split(".")[0] in ("api", "worker", "dpcore", "ledger", "domain", "cli")]
print(json.dumps(seen))
