"""A new kind of task is two files found by their name: nothing else knows it, from the upload to the answer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TITLE = {
    "dpcore/terms/tasks/title.py": """
from dpcore.terms.kind import Column, Kind

KIND = Kind(
    about="A language model learns titles.",
    columns=(Column(name="title", help="The column with the title."),),
    tells=("title",),
    causal_lm=True,
    measured_as="completion",
    example='asked = tokenizer("a title", return_tensors="pt")',
)
""",
    "dpcore/tasks/title.py": """
from dpcore.tasks.causal_lm import CausalLM


class Titles(CausalLM):
    def rows(self, columns):
        return self.apart([[(title, True)] for title in columns["title"]])


def make(tokenizer, *, labels, max_length):
    return Titles(tokenizer, max_length)
""",
}
CLAIM = {
    "dpcore/terms/tasks/claim.py": """
from dpcore.terms.kind import Column, Kind

KIND = Kind(
    about="Whether evidence bears a claim out.",
    columns=(Column(name="claim", help="The claim."), Column(name="evidence", help="What is said for it.")),
    tells=("evidence",),
    causal_lm=False,
    measured_as="classification",
    example="print(classify([{'text': 'a claim', 'text_pair': 'evidence'}], max_length={max_length}))",
)
""",
    "dpcore/tasks/claim.py": """
from dpcore.tasks.sequence_classification import SequenceClassification


def make(tokenizer, *, labels, max_length):
    return SequenceClassification(tokenizer, labels, max_length, columns=("claim", "evidence"))
""",
}


def test_two_files_are_a_kind_of_task(tmp_path: Path) -> None:
    """Only the database's CHECK, a migration, is missing."""
    shutil.copytree(ROOT / "dpcore", tmp_path / "dpcore")
    for name, code in (TITLE | CLAIM).items():
        (tmp_path / name).write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-P", "-m", "tests.new_task", str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["tree"] == str(tmp_path / "dpcore")
    of_texts = ["classification", "claim", "pair", "completion", "chat", "text", "title"]
    assert seen["kinds"] == ["classification", "image", *of_texts[1:]]
    assert seen["accepted"] == seen["kinds"]
    assert seen["fitting"] == of_texts
    assert seen["refused"] == "columns[prompt]: a file of task claim has the columns claim, evidence, label"
    for task, labels in (("title", None), ("claim", [0, 1, 2] * 10)):
        walked = seen[task]
        assert walked == {
            "task": task,
            "names": True,
            "problems": [],
            "kept": [True, labels],
            "records": 30,
            "steps": 2,
            "planned": True,
            "card": True,
            "answers": [0, 30],
            "help": True,
        }, task
