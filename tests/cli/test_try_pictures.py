"""`tacit try` on pictures: a folder, a zip and a Parquet file say the same, and what cannot be read is named."""

import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from domain.kit.settings import ModelSettings
from domain.models.allow_list import DEFAULT_SEER, base_models
from dpcore.export import About
from dpcore.methods import get_trainer
from dpcore.models import build_model
from dpcore.readers import load_reader
from dpcore.tasks import make_task
from tests.dpcore.picture_zoo import drawings

LABELS = ("cat", "dog", "bird")
BASE = base_models(ModelSettings()).usable[DEFAULT_SEER]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[float]]]:
    """An export that differs from its base, and what it says of the drawings."""
    folder = tmp_path_factory.mktemp("adapter")
    model = get_trainer("lora").attach(build_model("image", BASE.folder, LABELS, seed=0), {}, task="image", seed=0)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) / 3
    tokens, reader = BASE.facts.max_positions, load_reader("image", BASE.folder)
    get_trainer("lora").export(
        model.eval(), folder, About(BASE.name, BASE.revision, "lora", "image", LABELS, tokens), tokenizer=reader
    )
    task = make_task("image", reader, labels=LABELS, max_length=tokens)
    return folder, task.logits(model, {"image": drawings(6)}).softmax(1).tolist()


def png(picture) -> bytes:
    with io.BytesIO() as file:
        picture.save(file, "PNG")
        return file.getvalue()


def said(*arguments: str | Path) -> tuple[list[dict], str]:
    done = CliRunner().invoke(app, ["try", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_folder_an_archive_and_a_table_of_pictures_say_the_same(adapter, tmp_path: Path) -> None:
    folder, wanted = adapter
    pictures, labels = [png(one) for one in drawings(6)], [LABELS[i // 2] for i in range(6)]
    kept, archive, table = tmp_path / "new", tmp_path / "new.zip", tmp_path / "new.parquet"
    order = sorted(range(6), key=lambda i: (labels[i], i))
    with zipfile.ZipFile(archive, "w") as opened:
        for i in order:
            (kept / labels[i]).mkdir(parents=True, exist_ok=True)
            (kept / labels[i] / f"{i}.png").write_bytes(pictures[i])
            opened.writestr(f"{labels[i]}/{i}.png", pictures[i])
    pq.write_table(pa.table({"image": [pictures[i] for i in order], "label": [labels[i] for i in order]}), table)
    right = sum(LABELS[max(range(3), key=wanted[i].__getitem__)] == labels[i] for i in range(6))
    for source, names in ((kept, [f"{labels[i]}/{i}.png" for i in order]), (archive, None), (table, None)):
        answers, summary = said(folder, source)
        for answer, i in zip(answers, order, strict=True):
            assert list(answer["probabilities"].values()) == pytest.approx(wanted[i], abs=1e-4)
            assert answer["expected"] == labels[i]
        if names is not None:
            assert [answer["image"] for answer in answers] == names
        assert f"{right} of 6 labelled rows" in summary
    answers, summary = said(folder, kept / "cat")
    assert ([answer["image"] for answer in answers], summary) == (["0.png", "1.png"], "")
    assert not any("expected" in answer for answer in answers)


def test_what_is_no_picture_is_named(adapter, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    for source, words in (
        (tmp_path, "notes.txt: JPEG, PNG and WebP are taken"),
        (tmp_path / "empty", "has no picture"),
        (tmp_path / "notes.txt", "must be a folder of pictures, or end in one of .zip, .parquet"),
    ):
        done = CliRunner().invoke(app, ["try", str(adapter[0]), str(source)])
        assert done.exit_code == 1
        assert words in " ".join(done.output.split()), done.output
