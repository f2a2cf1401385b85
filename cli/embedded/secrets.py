"""The secrets of one data folder: made once, kept in files that only their owner reads."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cli.embedded.errors import StackError


def _fresh() -> str:
    return secrets.token_hex(32)


@dataclass(frozen=True)
class Secrets:
    """Hexadecimal, 32 bytes each."""

    superuser_password: str = field(default_factory=_fresh, repr=False)
    """Of the server's superuser, which `tacit up` needs while it makes the roles."""
    admin_password: str = field(default_factory=_fresh, repr=False)
    api_password: str = field(default_factory=_fresh, repr=False)
    worker_password: str = field(default_factory=_fresh, repr=False)
    key_pepper: str = field(default_factory=_fresh, repr=False)
    fingerprint_key: str = field(default_factory=_fresh, repr=False)
    signing_key: str = field(default_factory=_fresh, repr=False)
    """Ed25519 seed of the service: receipts and the witness."""
    policy_key: str = field(default_factory=_fresh, repr=False)
    """Ed25519 seed of the operator: raised limits, thaws, corrections. No service gets it."""
    master_key: str = field(default_factory=_fresh, repr=False)
    """Wraps the keys of blobs; API and worker read it from a file of its own."""


def load(data: Path) -> Secrets:
    """The secrets of the data folder, generated for a new one.

    Raises StackError when a database is there without its secrets: new ones would not open it.
    """
    path = data / "secrets" / "stack.json"
    if path.exists():
        kept = json.loads(path.read_text())
        known = Secrets(**kept)
        if asdict(known) != kept:  # an older folder lacks what a newer version needs
            save(path, json.dumps(asdict(known), indent=1))
        return known
    if (data / "postgres").exists():
        raise StackError(f"{path} is missing, and the database in {data} does not open without it. Restore the file.")
    made = Secrets()
    save(path, json.dumps(asdict(made), indent=1))
    return made


def save(path: Path, text: str) -> None:
    """Write a 0600 file whole or not at all, and durably: a database password lost is a database lost."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
