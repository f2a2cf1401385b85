"""Bytes from the service, checked against the sha256 that it promised."""

import hashlib
from pathlib import Path

from cli.client import ApiError, Client

PIECE = 2**20  # bytes


def fetch_checked(client: Client, path: str, target: Path) -> str:
    """Write what the service has at a path to a new file; answers its sha256. Raises ApiError for bytes that are not
    what was promised, or without a promise."""
    digest = hashlib.sha256()
    with client.stream(path) as response, target.open("wb") as file:
        promised = response.headers.get("x-content-sha256")
        for piece in response.iter_bytes(PIECE):
            digest.update(piece)
            file.write(piece)
    if promised is None:
        raise ApiError("The service gave no sha256 with the download, so it cannot be checked.")
    if digest.hexdigest() != promised:
        raise ApiError(f"The download is damaged: sha256 {digest.hexdigest()}, promised {promised}.", fix="try again")
    return str(promised)
