"""What the files of a folder tell before a weight is read: no model that can be loaded is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from dpcore.terms.folders import VOCABULARIES, require_usable
from tests.dpcore import zoo
from tests.worker import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.save_model(tmp_path)
    return tmp_path


def configure(folder: Path, name: str = "config.json", **values: Any) -> None:
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_no_architecture_is_refused(kind: zoo.Kind, tmp_path: Path) -> None:
    for name in zoo.KINDS[kind]:
        zoo.save(name, kind, tmp_path / name)
        require_usable(tmp_path / name)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_every_kind_of_vocabulary_is_a_tokenizer(folder: Path, name: str) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        require_usable(folder)
    (folder / name).touch()
    require_usable(folder)


def test_tokenizers_of_characters_need_no_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    configure(folder, "tokenizer_config.json", tokenizer_class="ByT5Tokenizer")
    require_usable(folder)
    (folder / "tokenizer_config.json").unlink()
    configure(folder, model_type="canine")
    require_usable(folder)


@pytest.mark.parametrize(
    "values", [{"text_config": {"vocab_size": 1}}, {"decoder_vocab_size": 7}, {"vocab_size": None}]
)
def test_a_table_is_held_against_the_one_size_that_it_must_have(folder: Path, values: dict[str, Any]) -> None:
    configure(folder, vocab_size=99)
    with pytest.raises(ValueError, match="vocab_size 99"):
        require_usable(folder)
    configure(folder, **values)
    require_usable(folder)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"shape": 3, "data_offsets": [0, 0]}}',
        b'{"a": {"shape": []}}',
        b"{}",
        b"[" * 9999,
    ],
)
def test_a_header_that_is_none_is_said_to_be_none(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=r"model\.safetensors has no valid header"):
        require_usable(folder)
