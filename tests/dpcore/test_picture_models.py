"""Models that see pictures, from their folders to what leaves: as their own image processors and stock readers have it."""

import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor

from dpcore.engine.errors import MixedExamples
from dpcore.export import About, PrivacyClaim, write_card
from dpcore.methods import get_trainer, load_export
from dpcore.models import build_model
from dpcore.readers import load_reader
from dpcore.tasks import make_task
from dpcore.terms.facts import ModelFacts, read_facts
from dpcore.terms.methods import get_method, method_names
from dpcore.terms.tasks import KINDS

from .picture_zoo import SEERS, SIDE, WITH_BATCH_NORM, drawings, kept, save_seer
from .test_train import Host, make_program

LABELS = ("cat", "dog", "bird")
OF_PICTURES = ("bitfit", "full", "lora", "lora-fa", "side", "zo")
REFUSED = {
    **dict.fromkeys(product(("swin", "convnext", "bit"), ("side",)), "a side network reads"),
    **dict.fromkeys(
        product(("bit",), ("lora", "lora-fa", "zo")), "no linear layer that lora can adapt; full trains it"
    ),
}
RECORDS = 8
PRIVACY = PrivacyClaim(2.5, 1e-5, "record", "add_or_remove_one", "Poisson-subsampled Gaussian", "The promise.", 400)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("seers")
    return {name: save_seer(config, made / name) for name, config in SEERS.items()}


def task_of(folder: Path) -> object:
    tokens = read_facts(folder).max_positions
    return make_task("image", load_reader("image", folder), labels=LABELS, max_length=tokens)


@pytest.mark.parametrize("name", SEERS)
def test_what_a_model_gets_is_what_its_own_processor_makes(folders, name):
    folder = folders[name]
    reader = load_reader("image", folder)
    stock = AutoImageProcessor.from_pretrained(str(folder), backend="pil")
    for picture in drawings(3):
        wanted = stock(picture, return_tensors="np")["pixel_values"][0]
        made = reader.pixels(kept(picture)).transpose(2, 0, 1) / 255.0
        mean, deviation = (np.array(of)[:, None, None] for of in (reader.mean, reader.deviation))
        assert np.abs((made - mean) / deviation - wanted).max() < 1e-5


def test_facts_tell_pictures_from_texts(folders, base_folder):
    for name, folder in folders.items():
        facts = read_facts(folder)
        assert facts.tasks == ("image",), name
        assert facts.pictures
    assert read_facts(folders["vit"]).max_positions == 1 + (SIDE // 8) ** 2
    assert "image" not in read_facts(base_folder).tasks
    assert {kind for kind, known in KINDS.items() if known.of_pictures} == {"image"}


def test_a_folder_that_disagrees_with_itself_says_how(tmp_path):
    folder = save_seer(SEERS["vit"], tmp_path / "a", size={"height": 64, "width": 64})
    with pytest.raises(
        ValueError, match=r"preprocessor_config\.json makes pictures of 64 pixels, and config\.json says"
    ):
        read_facts(folder)
    folder = save_seer(SEERS["vit"], tmp_path / "b", size={"height": 32, "width": 48})
    with pytest.raises(ValueError, match="not square"):
        read_facts(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"it has no preprocessor_config\.json"):
        read_facts(folder)
    with pytest.raises(OSError, match="which says how its pictures are made"):
        load_reader("image", folder)


def test_methods_of_texts_alone_say_so(folders):
    facts = read_facts(folders["vit"])
    fitting = [name for name in method_names() if not refusal(name, facts)]
    assert fitting == sorted(OF_PICTURES)
    assert refusal("prune", facts) == "prune is for texts, and this model (vit) sees pictures; lora fits both"


def refusal(method: str, facts: ModelFacts) -> str:
    spec = get_method(method)
    try:
        spec.check(spec.Options(), facts, "image")
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", SEERS)
def test_what_it_trained_leaves_and_answers_the_same_in_stock_libraries(folders, tmp_path, name):
    """Of all methods: two steps, an export, and the lines of its card in a process that has stock libraries alone."""
    folder, wanted = folders[name], {}
    pictures = drawings(RECORDS)
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    for method in OF_PICTURES:
        if (refused := REFUSED.get((name, method))) is not None:
            with pytest.raises(ValueError, match=refused):
                attached(folder, method)
        else:
            wanted[method] = trained(folder, tmp_path / method, method, pictures)
    said = as_the_cards_say([tmp_path / method for method in wanted], folder, RECORDS)
    for method, scores in wanted.items():
        for row, shares in zip(said[method], scores, strict=True):
            expected = dict(zip(LABELS, shares, strict=True))
            assert {one["label"]: pytest.approx(one["score"], abs=1e-4) for one in row} == expected, method


def trained(folder: Path, export: Path, method: str, pictures: list) -> list[list[float]]:
    """Export what two steps made; what it says of the pictures, as Tacit loads it too."""
    task, reader, model = task_of(folder), load_reader("image", folder), attached(folder, method)
    records = task.encode({"image": [kept(one) for one in pictures]}, [i % len(LABELS) for i in range(RECORDS)])
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    program = make_program(steps=2, max_length=task.max_length, learning_rate=0.05)
    assert Host().run(model, task, records, program).ended == "finished"
    assert any(not torch.equal(before[n], p) for n, p in model.named_parameters())
    model.eval()
    about = About("tiny", "0" * 64, method, "image", LABELS, task.max_length)
    get_trainer(method).export(model, export, about, tokenizer=reader)
    write_card(export, folder, PRIVACY)
    said, (loaded, _) = task.logits(model, {"image": pictures}), load_export(export, folder)
    torch.testing.assert_close(task.logits(loaded, {"image": pictures}), said, rtol=1e-4, atol=1e-5)
    return said.softmax(1).tolist()


def attached(folder: Path, method: str) -> torch.nn.Module:
    return get_trainer(method).attach(build_model("image", folder, LABELS, seed=0), {}, task="image", seed=0)


def as_the_cards_say(exports: list[Path], base: Path, count: int) -> dict[str, list[list[dict]]]:
    """What the lines in each README.md say of the pictures beside it, by the folder's name."""
    codes = {}
    for export in exports:
        (code,) = re.findall(r"```python\n(.*?)```", (export / "README.md").read_text(), re.DOTALL)
        code = re.sub(r"(?m)^base = .*$", f"base = {str(base)!r}", code)
        code, found = re.subn(
            r"print\(classify\(.*\)\)", f"said = classify({[f'../{i}.png' for i in range(count)]!r})", code
        )
        assert found == 1
        codes[str(export)] = code
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-P", "-c", _EACH]
    done = subprocess.run(
        command, input=json.dumps(codes), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


_EACH = """
import json, os, sys
said = {}
for folder, code in json.load(sys.stdin).items():
    os.chdir(folder)
    sys.modules.pop("load", None)
    sys.path_importer_cache.pop(".", None)
    scope = {}
    exec(code, scope)
    said[os.path.basename(folder)] = scope["said"]
assert not {"dpcore", "domain", "cli"} & set(sys.modules)
print(json.dumps(said))
"""


def test_a_batch_norm_is_refused_with_the_remedy(tmp_path):
    folder = save_seer(WITH_BATCH_NORM, tmp_path / "resnet")
    task = task_of(folder)
    records = task.synthetic(RECORDS, task.max_length)
    for method in ("bitfit", "full"):
        with pytest.raises(MixedExamples, match=r"is a batch norm, .* take a model with group norms, as BiT"):
            Host().run(attached(folder, method), task, records, make_program(steps=1, max_length=task.max_length))
