"""What endpoints are given: the process's resources, and one transaction a request."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Annotated

import sqlalchemy as sa
from anyio import CapacityLimiter
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import Depends, Request

from api.rate import RateLimit
from domain.keeping.keeper import Keeper
from domain.kit.refusals import Conflict
from domain.kit.settings import ApiSettings
from domain.models.allow_list import DEFAULT_MODEL, AllowList, BaseModelFacts, Models
from domain.storage.blobs import Store


@dataclass(frozen=True)
class Resources:
    """Made once at start; nothing here is made at import."""

    settings: ApiSettings
    engine: sa.Engine
    store: Store
    allow_list: AllowList
    slots: CapacityLimiter
    """Requests that hold a connection from one thread to the next. Slots and threads together never need more
    connections than the pool has: otherwise threads wait for connections whose holders wait for threads."""
    checks: CapacityLimiter
    """Files that are checked at the same time."""
    check_first: bool
    """Whether a job that does not fit is refused in words before the database refuses it; tests switch it off."""
    keeper: Keeper
    rate: RateLimit
    signer: Ed25519PrivateKey
    """The service's key for receipts."""
    streams: Counter[str] = field(default_factory=Counter)
    """Event streams that are open now, by key; touched in the event loop alone."""

    @property
    def models(self) -> Models:
        """The base models as they are now."""
        return self.allow_list.look()

    @property
    def default_model(self) -> BaseModelFacts:
        """The built-in model, or the first one where it cannot be used. Raises Conflict where none can."""
        usable = self.models.usable
        if not usable:
            raise Conflict("no base model can be used; ask the operator (tacit doctor)", code="model_unavailable")
        return usable.get(DEFAULT_MODEL) or next(iter(usable.values()))


async def resources(request: Request) -> Resources:
    """The resources that the application's lifespan made. Async, because it waits for nothing: it needs no thread."""
    made: Resources = request.state.resources
    return made


Service = Annotated[Resources, Depends(resources)]


async def _slot(service: Service) -> AsyncIterator[None]:
    """A place among the requests that hold a connection; waiting for it holds no thread."""
    async with service.slots:
        yield


def transaction(service: Service, slot: Annotated[None, Depends(_slot, scope="function")]) -> Iterator[sa.Connection]:
    """Commits after the endpoint succeeded and before the answer is sent; rolls back when it raises."""
    with service.engine.begin() as connection:
        yield connection


Transaction = Annotated[sa.Connection, Depends(transaction, scope="function")]
