"""One attempt at a delivery: nothing but the status of the answer is read, and every way to fail has plain words."""

import asyncio
import ssl
import time
from collections.abc import Mapping

import httpx

from domain.webhooks.hosts import is_here

SECONDS = 10.0
"""For everything: the name, the connection, the message and the head of the answer."""


async def send(context: ssl.SSLContext, url: httpx.URL, headers: Mapping[str, str], body: bytes) -> str | None:
    """None where the answer was a success, otherwise why not. No redirect is followed, no body of an answer read."""
    try:
        async with asyncio.timeout(SECONDS):
            # A proxy does not know this machine's addresses.
            client = httpx.AsyncClient(verify=context, timeout=SECONDS, trust_env=not is_here(url.host))
            async with client, client.stream("POST", url, headers=headers, content=body) as answer:
                return None if answer.is_success else f"it answered {answer.status_code}"
    except (TimeoutError, httpx.TimeoutException):
        return f"it did not answer within {SECONDS:.0f} seconds"
    except httpx.ConnectError:
        return "no connection could be made"
    except (httpx.HTTPError, OSError, ValueError) as error:
        return f"the connection broke ({type(error).__name__})"


def clock() -> int:
    """Seconds since 1970, of sending."""
    return int(time.time())
