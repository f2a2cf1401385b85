"""How the service does, as its operator reads it."""

from typing import Literal

from pydantic import BaseModel, Field

from domain.keeping.keeper import Word


class Worker(BaseModel):
    """A worker that answered over the broker. What it is at is not told."""

    name: str | None = Field(description="process and host, for the operator's tenant alone")
    silo: str | None = Field(description="whose jobs it takes; null: those of every tenant without a silo")
    versions: dict[str, str] = Field(description="of python and packages; empty for a worker of an earlier release")


class Queue(BaseModel):
    """Jobs that are not at an end."""

    in_line: int = Field(description="queued, and waiting for a worker alone")
    waiting_for_approval: int
    waiting_for_silos: int
    paused: int
    running: int


class Load(BaseModel):
    """Jobs and budgets in numbers."""

    queue: Queue
    jobs: dict[str, int] = Field(description="all there are, by status")
    frozen_budgets: int


class ModelState(BaseModel):
    """A base model, and why jobs may not name it."""

    id: str
    available: bool
    because: str | None = Field(description="what is wrong with its files, or the methods that were tried in vain")


class Disk(BaseModel):
    """A folder of the API's machine that it writes to."""

    place: str
    word: Literal["ok", "low"] = Field(description="low: less than an upload of the largest size and the reserve")
    free_gib: int | None = Field(description="whole GiB, for the operator's tenant alone")


class Keeping(BaseModel):
    """How the memory of the ledger is kept."""

    keeper: Word
    witness: Word
    turn_at: int | None = Field(description="when a keeper last made its turn, to the minute")
    verified_at: int | None = Field(description="when every budget was last verified, to the minute; null: never yet")


class StatusReport(BaseModel):
    """How the service does."""

    object: Literal["status"] = "status"
    checks: dict[str, Word] = Field(description="as /readyz has them")
    workers: list[Worker] | None = Field(description="null: the broker does not answer")
    tenant: Load = Field(description="of your tenant")
    installation: Load | None = Field(description="of all tenants together, for the operator's tenant alone")
    models: list[ModelState]
    disk: list[Disk]
    keeping: Keeping
    versions: dict[str, str] = Field(description="of this API process and of the database")
