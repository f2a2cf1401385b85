"""`python -m ledger`: write manifest.json from the freshly migrated database behind TACIT_ADMIN_DATABASE_URL."""

import json
import os
from pathlib import Path

import sqlalchemy as sa

from ledger.guard import MANIFEST, read_manifest


def main() -> None:
    engine = sa.create_engine(os.environ["TACIT_ADMIN_DATABASE_URL"])
    with engine.connect() as connection:
        text = json.dumps(read_manifest(connection), indent=1, sort_keys=True)
    (Path(__file__).parent / MANIFEST).write_text(text + "\n")


main()
