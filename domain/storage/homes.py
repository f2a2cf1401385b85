"""Where a blob belongs, which its name alone says: to a silo, to the exchange, or to the general store.

A home is what its blobs' names begin with: `silos/<name>/`, `exchange/`, or nothing. The database reads names the same
way (`ledger.silo_of`).
"""

import re
from collections.abc import Mapping

from domain.kit.purposes import PUBLIC
from domain.kit.settings import SiloPlace

GENERAL = ""
EXCHANGE = "exchange/"
"""What all workers may open: noised messages of federated jobs, and public files of tenants that have a silo."""
PATTERN = "^(silos/[a-z0-9][a-z0-9-]{0,39}/|exchange/)"
"""As both Python and Postgres read it; a name that does not match is of the general store."""


def silo_home(silo: str) -> str:
    return f"silos/{silo}/"


def home_of(blob: str) -> str:
    """The home of a blob of this name."""
    found = re.match(PATTERN, blob)
    return GENERAL if found is None else found[1]


def home_for(silos: Mapping[str, SiloPlace], tenant_id: str, purpose: str) -> str:
    """Where a new file of a tenant goes. A public one of a tenant with a silo goes where its silo's worker and the
    worker that joins federated jobs can both read it."""
    for name, silo in silos.items():
        if tenant_id in silo.tenants:
            return EXCHANGE if purpose == PUBLIC else silo_home(name)
    return GENERAL
