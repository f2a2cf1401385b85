"""The keys of blobs: one each, wrapped by a master key, in the database. Without its row a blob is noise for good.

`python -m domain.storage.vault` wraps what the other master keys have wrapped again under the first, so that they can
be retired.
"""

import secrets
import sys
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from domain.kit.settings import BadSettings, RewrapSettings, from_environment
from domain.kit.tables import data_key
from domain.storage.homes import GENERAL, PATTERN
from domain.storage.masters import KeyUnavailable, Masters, NoMasterKey, read_masters
from domain.storage.sealing import KEY

REWRAP = 500
"""Keys in a transaction."""


@dataclass(frozen=True)
class Vault:
    """The keys that this process may use. Each call is a transaction of its own."""

    engine: sa.Engine
    masters: Masters

    def new_key(self, blob: str) -> bytes:
        """The key to write this blob with: a fresh one, or the one that the name has already."""
        key, first = secrets.token_bytes(KEY), self.masters.first
        row = {"blob": blob, "wrapped": first.wrap(key, blob), "master": first.id}
        adding = insert(data_key).values(row).on_conflict_do_nothing().returning(data_key.c.blob)
        with self.engine.begin() as connection:
            added = connection.execute(adding).one_or_none()
        return self.key(blob) if added is None else key

    def key(self, blob: str) -> bytes:
        """Raises FileNotFoundError when it was destroyed, NoMasterKey or KeyUnavailable when it cannot be opened."""
        wanted = sa.select(data_key.c.wrapped, data_key.c.master).where(data_key.c.blob == blob)
        with self.engine.connect() as connection:
            row = connection.execute(wanted).one_or_none()
        if row is None:
            raise FileNotFoundError(f"{blob} has no key: it was deleted")
        return self.masters.opener(row.master).unwrap(row.wrapped, blob)

    def destroy(self, blob: str) -> None:
        """Make a blob unreadable for good, wherever copies of it are."""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(data_key).where(data_key.c.blob == blob))

    def destroy_all(self, prefix: str) -> None:
        """Destroy the keys of all blobs whose names begin so."""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(data_key).where(data_key.c.blob.startswith(prefix, autoescape=True)))


def open_vault(masters: Masters, engine: sa.Engine, home: str = GENERAL) -> Vault:
    """The keys behind these master keys, which wrap those of one home's blobs. Raises NoMasterKey when some of them
    were wrapped by another one."""
    its = sa.func.coalesce(sa.func.substring(data_key.c.blob, PATTERN), GENERAL) == home
    with engine.connect() as connection:
        for id in connection.execute(sa.select(data_key.c.master).where(its).distinct()).scalars():
            masters.opener(id)
    return Vault(engine, masters)


def rewrap(engine: sa.Engine, masters: Masters) -> int:
    """Wrap every key again that another of these master keys has wrapped; answers how many. Keys under master keys that
    are not among them stay as they are: a silo's, the exchange's.

    Services may run meanwhile, if they know both master keys. Blobs are not touched. Needs the admin login.
    """
    old = data_key.c.master.in_(masters.known.keys() - {masters.first.id})
    wanted = sa.select(data_key).where(old).limit(REWRAP).with_for_update(skip_locked=True)
    done = 0
    while True:
        with engine.begin() as connection:
            rows = connection.execute(wanted).all()
            for row in rows:
                key = masters.opener(row.master).unwrap(row.wrapped, row.blob)
                values = {"wrapped": masters.first.wrap(key, row.blob), "master": masters.first.id}
                connection.execute(sa.update(data_key).where(data_key.c.blob == row.blob).values(values))
        if not rows:
            return done
        done += len(rows)


def under_others(engine: sa.Engine, masters: Masters) -> int:
    """How many keys are under none of these master keys."""
    with engine.connect() as connection:
        counted = sa.select(sa.func.count()).where(data_key.c.master.not_in(masters.known.keys()))
        return int(connection.execute(counted).scalar_one())


def main() -> int:
    """Answers the exit status."""
    try:
        settings = from_environment(RewrapSettings)
        engine, masters = sa.create_engine(settings.admin_database_url.get_secret_value()), read_masters(settings)
        done, others = rewrap(engine, masters), under_others(engine, masters)
    except (BadSettings, NoMasterKey, KeyUnavailable) as error:
        sys.stderr.write(f"Nothing more was wrapped: {error}.\n")
        return 1
    sys.stdout.write(f"{done} keys are under another master key now.\n")
    if others:
        sys.stdout.write(f"{others} keys of other master keys, such as a silo's, were left as they are.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
