"""Where webhooks may be sent: hosts that the operator names, and nowhere else."""

import httpx

from domain.kit.refusals import Invalid

SETTING = "TACIT_WEBHOOK_HOSTS"
_PORTS = {"https": 443, "http": 80}


class NotAllowed(Exception):
    """Nothing is sent there; the message says why, for the hook's owner."""


def require_allowed(url: str, hosts: str) -> httpx.URL:
    """The address, if the list has its host and port. hosts: the setting. Raises NotAllowed.

    The list names hosts one by one, so that an address in the operator's own network is one that the operator named.
    """
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL:
        raise NotAllowed("the address is no URL") from None
    here = is_here(found.host)
    if found.scheme != "https" and not (here and found.scheme == "http"):
        raise NotAllowed("the address must begin with https:// (http:// is for localhost alone)")
    if found.userinfo or found.fragment or not found.host:
        raise NotAllowed("the address must have a host, and no user, password or fragment")
    named = {part.strip() for part in hosts.split(",")} - {""}
    if not named:
        raise NotAllowed(f"no host may be sent to: the operator names them in {SETTING}")
    host = f"[{found.host}]" if ":" in found.host else found.host
    port = found.port or _PORTS[found.scheme]
    if f"{host}:{port}" not in named and not (port == 443 and host in named):
        raise NotAllowed(f"the host and port of the address are not on the operator's list ({SETTING})")
    return found


def require_registrable(url: str, hosts: str) -> None:
    """The same as an answer to whoever registers it. Raises Invalid."""
    try:
        require_allowed(url, hosts)
    except NotAllowed as error:
        raise Invalid(str(error), code="webhook_address", param="url") from None


def is_here(host: str) -> bool:
    """Whether it is this machine by its name."""
    return host in ("localhost", "::1") or host.startswith("127.")
