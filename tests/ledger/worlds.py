"""A small world for ledger tests: a tenant, a budget, a private file and jobs, made through the service's own logins."""

from dataclasses import dataclass, field
from decimal import Decimal

import sqlalchemy as sa

from domain.access.grants import Viewer
from domain.kit import tables
from domain.kit.ids import new_id
from ledger.budgets import Balance, Reference, balance, open_budget
from ledger.reserve import Admission, Charge, Priced, reserve
from ledger.tables import budget as budget_table
from tests.conftest import Database

REFERENCE_JOB = Priced(sample_rate=0.01, noise_multiplier=1.6595, steps=1000)


@dataclass
class World:
    """Engines of the logins and the ids of one tenant's things."""

    database: Database
    root: sa.Engine = field(init=False)
    """The server's superuser: for what no login of an installation can do."""
    admin: sa.Engine = field(init=False)
    api: sa.Engine = field(init=False)
    worker: sa.Engine = field(init=False)
    tenant: str = field(default_factory=lambda: new_id("tenant"))
    key: str = field(default_factory=lambda: new_id("key"))
    pool: type[sa.Pool] = sa.QueuePool
    """Sessions are kept, as a new one costs more than most of what tests ask. NullPool: each is new, and holds nothing
    of the one before."""

    def __post_init__(self) -> None:
        self.root = self._engine(self.database.superuser_url)
        self.admin = self._engine(self.database.admin_url)
        self.api = self._engine(self.database.api_url)
        self.worker = self._engine(self.database.worker_url)
        with self.api.begin() as c:
            known = c.execute(sa.select(tables.tenant.c.id).where(tables.tenant.c.id == self.tenant)).first()
            if known is not None:  # in a copy of the database
                return
            c.execute(tables.tenant.insert().values(id=self.tenant, name="hospital"))
            c.execute(
                tables.api_key.insert().values(
                    id=self.key,
                    tenant_id=self.tenant,
                    name="k",
                    prefix="tacit_",
                    mac=self.key.encode(),
                    scopes=["steward", "analyst"],
                )
            )

    def _engine(self, url: str) -> sa.Engine:
        return sa.create_engine(url, poolclass=self.pool, pool_pre_ping=True)  # some tests kill sessions from outside

    @property
    def viewer(self) -> Viewer:
        """The world's key: a steward's, who needs no grant."""
        return Viewer(self.key, self.tenant, frozenset(["steward", "analyst"]))

    def budget(self, epsilon: str = "8", delta: str = "1e-5", reference: Reference | None = None) -> str:
        made = new_id("budget")
        with self.api.begin() as c:
            open_budget(
                c,
                id=made,
                tenant_id=self.tenant,
                name="notes",
                epsilon=Decimal(epsilon),
                delta=Decimal(delta),
                unit="record",
                max_records_per_user=None,
                reference=reference or Reference(0.01, 1000, 1.6595),
            )
        return made

    def file(self, budget_id: str, home: str = "") -> str:
        """A private file. home: where its rows lie, as the names of blobs begin."""
        made = new_id("file", "-")
        with self.api.begin() as c:
            c.execute(
                tables.file.insert().values(
                    id=made,
                    tenant_id=self.tenant,
                    purpose="fine-tune",
                    filename="f",
                    budget_id=budget_id,
                    blob=f"{home}files/{made}/rows.parquet",
                )
            )
        return made

    def marks(self, budget_id: str, *kinds: str) -> None:
        """Fingerprints of new records or users, as an upload leaves them."""
        insert = sa.text("INSERT INTO fingerprint VALUES (:tenant, :kind, sha256(:mac), :budget)")
        rows = [
            {"tenant": self.tenant, "kind": kind, "mac": new_id("m").encode(), "budget": budget_id} for kind in kinds
        ]
        with self.api.begin() as c:
            c.execute(insert, rows)

    def submit(
        self, charges: list[tuple[str, str, list[Priced]]], job: str | None = None
    ) -> tuple[str, list[Admission]]:
        """One job over (file, budget, phases), as the API does it: all in one transaction."""
        job = job or new_id("ftjob", "-")
        with self.api.begin() as c:
            self.job_rows(c, job, [(f, b) for f, b, _ in charges])
            receipts = reserve(c, job, [Charge(new_id("resv"), f, b, p) for f, b, p in charges])
        return job, receipts

    def job_rows(self, c: sa.Connection, job: str, files: list[tuple[str, str]]) -> None:
        c.execute(
            tables.job.insert().values(
                id=job, tenant_id=self.tenant, created_by=self.key, model="m", method={}, plan={}, privacy={}, seed=0
            )
        )
        for file, budget in files:
            c.execute(tables.job_file.insert().values(job_id=job, file_id=file, budget_id=budget))

    def price(self, budget_id: str, sigma: float, q: float) -> tuple[int, ...]:
        """What one step costs this budget, by the database."""
        priced = sa.func.ledger.poisson_gaussian_curve(sigma, q, budget_table.c.orders)
        with self.api.connect() as c:
            return tuple(c.execute(sa.select(priced).where(budget_table.c.id == budget_id)).scalar_one())

    def nothing(self, budget_id: str) -> tuple[int, ...]:
        """The cost of no step to this budget."""
        return self.balance(budget_id).filter.nothing

    def balance(self, budget_id: str) -> Balance:
        with self.api.connect() as c:
            return balance(c, budget_id)
