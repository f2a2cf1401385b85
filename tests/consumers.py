"""What readers of exports do, each in its own way, as a program of its own: stock transformers and peft, nothing of Tacit.

consumers.py CASES: a JSON file with a list of {"name", "base", "export", "labels", "texts", "max_length"}. Prints, for
each case and consumer, what came out ("logits", "labels" or "tokens") or the "error", and which modules of Tacit's were
loaded.
"""

import contextlib
import io
import json
import os
import re
import sys
import warnings
from pathlib import Path

import torch
import transformers
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    pipeline,
)

warnings.simplefilter("ignore")
transformers.logging.set_verbosity(50)
if hasattr(transformers.logging, "disable_progress_bar"):
    transformers.logging.disable_progress_bar()


class Reader:
    """One export and its base model."""

    def __init__(self, case):
        self.export, self.base, self.labels = case["export"], case["base"], case["labels"]
        self.texts, self.max_length = case["texts"], case["max_length"]
        self.tokenizer = AutoTokenizer.from_pretrained(self.export)
        self.settings = {"torch_dtype": torch.float32}
        if self.labels:
            self.settings |= {
                "id2label": dict(enumerate(self.labels)),
                "label2id": {label: i for i, label in enumerate(self.labels)},
                "pad_token_id": self.tokenizer.pad_token_id,
            }
        self.auto = AutoModelForSequenceClassification if self.labels else AutoModelForCausalLM
        self.config = (
            json.loads(file.read_text()) if (file := Path(self.export, "adapter_config.json")).exists() else {}
        )

    def loader(self):
        """The names in load.py."""
        scope = {"__name__": "load", "__file__": str(Path(self.export, "load.py"))}
        exec(Path(self.export, "load.py").read_text(), scope)
        return scope

    def peft(self):
        if Path(self.export, "pruned.json").exists():
            model = self.loader()["load_base"](self.base, self.export)
        else:
            model = self.auto.from_pretrained(self.base, **self.settings)
        return PeftModel.from_pretrained(model, self.export).eval()

    def built(self):
        """As the card says, whatever the layout."""
        if self.config and not Path(self.export, "load.py").exists():
            model = self.peft()
            if not self.labels:
                model.generation_config = GenerationConfig.from_pretrained(self.export)
            return model
        if Path(self.export, "load.py").exists():
            return self.loader()["load"](self.base, self.export)
        return self.auto.from_pretrained(self.export, torch_dtype=torch.float32).eval()

    @torch.no_grad()
    def logits(self, model):
        out = []
        for text in self.texts:
            encoded = self.tokenizer(text, truncation=True, max_length=self.max_length, return_tensors="pt")
            out.append(model(**encoded).logits[0].tolist())
        return {"logits": out}

    def card(self):
        """The lines in README.md, with the base where it lies on this machine."""
        (code,) = re.findall(r"```python\n(.*?)```", Path(self.export, "README.md").read_text(), re.DOTALL)
        said, before = io.StringIO(), os.getcwd()
        sys.modules.pop("load", None)
        sys.path_importer_cache.pop(".", None)  # it remembers the folder of the card before
        os.chdir(self.export)
        try:
            with contextlib.redirect_stdout(said):
                code = re.sub(r"(?m)^base = .*$", f"base = {self.base!r}", code).replace("load()", "load(base)")
                exec(code.replace("=64", "=8"), {})  # tiny models have few positions
        finally:
            os.chdir(before)
            sys.path[:] = [place for place in sys.path if place != "."]
        return {"said": said.getvalue()}

    def stock_peft(self):
        return self.logits(self.peft())

    def auto_peft(self):
        auto = AutoPeftModelForSequenceClassification if self.labels else AutoPeftModelForCausalLM
        return self.logits(auto.from_pretrained(self.export, **self.settings).eval())

    def merged(self):
        return self.logits(self.peft().merge_and_unload())

    def pipeline_of_model(self):
        return self.answers(pipeline("text-classification", model=self.built(), tokenizer=self.tokenizer))

    def pipeline_of_folder(self):
        settings = self.settings if self.config else {"torch_dtype": torch.float32}
        revision = {"revision": self.config["revision"]} if self.config.get("revision") else {}
        made = pipeline(
            "text-classification", model=self.export, tokenizer=self.tokenizer, model_kwargs=settings, **revision
        )
        return self.answers(made)

    def answers(self, made):
        shown = made(self.texts, truncation=True, max_length=self.max_length, top_k=None)
        return {"labels": [{one["label"]: one["score"] for one in row} for row in shown]}

    def batch(self):
        """Two texts of unlike lengths at once."""
        model, texts = self.built(), self.texts[:2]
        encoded = self.tokenizer(
            texts, truncation=True, max_length=self.max_length, padding=True, padding_side="right", return_tensors="pt"
        )
        with torch.no_grad():
            logits = model(**encoded).logits
        if self.labels:
            return {"logits": logits.tolist()}
        lengths = encoded["attention_mask"].sum(1).tolist()
        return {"logits": [row[:length].tolist() for row, length in zip(logits, lengths, strict=True)]}

    def generate(self):
        model, out = self.built(), []
        for text in self.texts[:2]:
            encoded = self.tokenizer(text, return_tensors="pt")
            written = model.generate(
                encoded["input_ids"], attention_mask=encoded["attention_mask"], max_new_tokens=8, do_sample=False
            )
            out.append(written[0].tolist())
        return {"tokens": out}


BOTH = ("card", "stock_peft", "auto_peft", "merged", "batch")
seen = {}
for case in json.loads(Path(sys.argv[1]).read_text()):
    reader = Reader(case)
    seen[case["name"]] = {}
    for consumer in (*BOTH, *(("pipeline_of_model", "pipeline_of_folder") if case["labels"] else ("generate",))):
        try:
            seen[case["name"]][consumer] = getattr(reader, consumer)()
        except Exception as error:  # noqa: BLE001
            seen[case["name"]][consumer] = {"error": f"{type(error).__name__}: {error}"}
ours = [m for m in sys.modules if m.split(".")[0] in ("api", "worker", "dpcore", "ledger", "domain", "cli")]
print(json.dumps({"seen": seen, "ours": ours, "transformers": transformers.__version__}))
