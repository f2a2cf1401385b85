"""A receiver of webhooks that fails as receivers do: answers 500, hangs, or cuts the connection."""

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "api.md"


def documented() -> Callable[[str, dict[str, str], bytes], bool]:
    """The check of a signature as the documentation has it."""
    (example,) = re.findall(r"```python\n(import base64.*?)```", DOCS.read_text(), re.S)
    names: dict[str, Callable[[str, dict[str, str], bytes], bool]] = {}
    exec(example, names)
    return names["message_is_ours"]


@dataclass(frozen=True)
class Arrival:
    """A message that came, whether the sender was told so, and whether its signature and its time were right then."""

    headers: dict[str, str]
    body: bytes
    acknowledged: bool
    genuine: bool


@dataclass
class Receiver:
    """fails: the part of messages that are not acknowledged, by one of the faults, as a seeded generator has it."""

    fails: float = 0.0
    faults: Sequence[str] = ("500", "500", "cut", "hang")
    hang: float = 1.0
    status: int = 200
    more: dict[str, str] = field(default_factory=dict)
    endless: bool = False
    secret: str = ""
    arrivals: list[Arrival] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    url: str = ""

    def fault(self, random: random.Random) -> str | None:
        return random.choice(self.faults) if random.random() < self.fails else None


@contextmanager
def receiving(receiver: Receiver) -> Iterator[Receiver]:
    """The receiver on a port of its own."""
    lock, chance, is_ours = threading.Lock(), random.Random(20261130), documented()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with lock:
                fault = receiver.fault(chance)
                receiver.seen[fault or "none"] += 1
                well = fault is None and 200 <= receiver.status < 300
                headers = {name.lower(): value for name, value in self.headers.items()}
                genuine = is_ours(receiver.secret, headers, body)
                receiver.arrivals.append(Arrival(headers, body, well, genuine))
            if fault == "hang":
                time.sleep(receiver.hang)
            if fault in ("cut", "hang"):
                self.close_connection = True
                return
            self.send_response(500 if fault == "500" else receiver.status)
            for name, value in receiver.more.items():
                self.send_header(name, value)
            if not receiver.endless:
                self.send_header("content-length", "0")
                self.end_headers()
                return
            self.send_header("content-length", str(2**40))
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(2**16))
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A sender that has heard enough goes away."""

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://localhost:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
