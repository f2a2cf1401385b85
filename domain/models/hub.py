"""Base models from the Hugging Face hub: one pinned commit, weights as safetensors, no code, and nothing fetched unless
it was asked for."""

import fnmatch
import os
from pathlib import Path

from domain.kit.settings import HubModel
from dpcore.terms import folders

WANTED = (
    *("config.json", "generation_config.json", "model.safetensors", "model-*-of-*.safetensors", folders.INDEX),
    folders.PREPROCESSOR,
    *folders.TOKENIZER,
    *("README.md", "LICENSE*"),
)
"""What is taken of a repository: configuration, weights, what says how texts
or pictures are read, and what says under which licence."""


def cached(model: HubModel) -> Path:
    """The folder of a model that is in the local cache. Raises FileNotFoundError naming the fix, or ValueError for one
    without safetensors."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                model.repository, revision=model.revision, allow_patterns=list(WANTED), local_files_only=True
            )
        )
    except LocalEntryNotFoundError:  # nothing of it, or a download that was cut off
        raise FileNotFoundError(
            f"{model} is not in the local cache; fetch it once with `tacit models pull`, or set TACIT_HUB_ONLINE=1"
        ) from None
    _require_safetensors(model, [path.name for path in folder.iterdir()])
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{model} is in the local cache without its config.json: `tacit models pull` again")
    return folder


def download(model: HubModel) -> Path:
    """Fetch what is missing of a model into the cache. Raises ValueError for a repository without safetensors, OSError
    when the hub cannot be reached or has no such commit."""
    os.environ["HF_HUB_OFFLINE"] = "0"  # read at the import below: this is the one place that means to go online
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    constants.HF_HUB_OFFLINE = False
    try:
        offered = HfApi().list_repo_files(model.repository, revision=model.revision)
        _require_safetensors(model, offered)
        folder = snapshot_download(model.repository, revision=model.revision, allow_patterns=list(WANTED))
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise FileNotFoundError(f"the hub has no {model}, or not for you") from None
    except (HTTPError, LocalEntryNotFoundError) as error:
        raise OSError(f"the hub does not give {model}: {type(error).__name__}") from None
    return Path(folder)


def _require_safetensors(model: HubModel, names: list[str]) -> None:
    if not any(fnmatch.fnmatch(name, "model*.safetensors") for name in names):
        others = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".h5", ".msgpack")))
        only = f"; it has {', '.join(others)}, and such files can run code when they are read" if others else ""
        raise ValueError(f"{model} has no weights as model.safetensors{only}")
