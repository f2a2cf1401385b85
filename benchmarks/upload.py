"""Does a large upload pass through the API without staying in its memory, and how long until it can be used?

A file of made-up rows, never whole in anybody's memory, is sent to the service as `tacit up` runs it (Postgres with
every commit on the disk, a folder store, one API process), by the one way that there is, POST /v1/files: once with its
length declared, as the openai SDKs and `tacit files upload` do, once in chunks of a length that nobody said. The
service's own limit is 1 GiB: TACIT_UPLOAD_LIMIT is set to the size that is sent. Needs three times that size on the
disk of TMPDIR, and leaves nothing there.

{declared,chunked}/api_growth_mib      MiB that the API's process (PSS) grew by at most, from the first byte to the
                                       answer; `after`: what was left of it two seconds later
{declared,chunked}/check_peak_mib      MiB (RSS) of the child process that checks the rows
{declared,chunked}/receive_mib_s       MiB per second until the last byte was sent
{declared,chunked}/check_mib_s         MiB per second of the check: parsing, fingerprints, writing Parquet
{declared,chunked}/store_mib_s         MiB per second from there to the answer: encrypting, storing, binding every
                                       fingerprint to the budget in the database
{declared,chunked}/processed_s         seconds from the first byte to the answer, which says `processed`
download/api_growth_mib                the same for GET .../content, the checked rows as JSON Lines
"""

import contextlib
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

if __name__ == "__main__":  # run as a file: no module of this folder may hide a package of its name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.clients.served import MIB, Served, answered, memory, serving
from benchmarks.common import Figure, parser, report, versions

NAME = "upload"
BOUNDARY = "a-line-that-no-row-holds"
_HEADERS = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
BEAT = 0.05
WORDS = "the patient was seen again today and says that knee back shoulder hurts less more than a week ago"


@dataclass
class Watch:
    """The memory of the API and of what checks for it, sampled while something happens."""

    served: Served
    before: int
    peak: int = 0
    check_peak: int = 0
    checked: list[float] = field(default_factory=list)
    """When a check was seen first and last."""
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.over.wait(BEAT):
            self.peak = max(self.peak, self.served.memory().pss)
            for pid in self.served.checks():
                with contextlib.suppress(OSError):
                    self.check_peak = max(self.check_peak, memory(pid).peak)
                    self.checked = [*self.checked[:1], time.perf_counter()]


@contextlib.contextmanager
def watched(served: Served) -> Iterator[Watch]:
    """Samples until the end of the block."""
    watch = Watch(served, served.memory().pss)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield watch
    finally:
        watch.over.set()
        thread.join()


def body(tag: str, size: int, row: int) -> Iterator[bytes]:
    """A multipart form with a private CSV file of `size` bytes, in pieces of about 1 MiB; every row is another one."""
    fields = {
        "purpose": "fine-tune",
        "privacy_budget[epsilon]": "8",
        "declared_size": str(size // row + 1),
        "labels": "0,1",
        # Made of twenty words, millions of rows resemble each other.
        "overlap": "different_population",
        "overlap_reason": "made-up rows",
    }
    for name, value in fields.items():
        yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="rows.csv"\r\n\r\n'.encode()
    yield from rows(tag, size, row)
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def rows(tag: str, size: int, row: int) -> Iterator[bytes]:
    """CSV of exactly `size` bytes; each row has `row` of them, the last one up to twice as many."""
    text = " ".join(
        random.Random(7).choices(WORDS.split(), k=2**19)
    ).encode()  # packs no better than prose: no copies nearby
    head = b"text,label\n"
    yield head
    count, at_once = (size - len(head)) // row, max(1, MIB // row)
    for first in range(0, count, at_once):
        lines = []
        for number in range(first, min(count, first + at_once)):
            length = row if number < count - 1 else size - len(head) - row * (count - 1)
            start, place = f"{tag} {number:012d} ".encode(), number * 104_729 % (len(text) - 2 * row)
            lines.append(start + text[place : place + length - len(start) - 3] + b",%d\n" % (number % 2))
        yield b"".join(lines)


def upload(served: Served, way: str, size: int, row: int, bar: Progress) -> tuple[list[Figure], str]:
    """The figures of one upload, and the file's id."""
    task = bar.add_task(f"sending, length {way}", total=size)
    headers = dict(_HEADERS)
    if way == "declared":
        headers["content-length"] = str(_length(way, size, row))
    sent = began = time.perf_counter()

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for piece in body(way, size, row):
            yield piece
            bar.advance(task, len(piece))
            sent = time.perf_counter()

    with served.client() as client, watched(served) as watch:
        began = time.perf_counter()
        made = answered(client.post("/v1/files", content=pieces(), headers=headers))
        ended = time.perf_counter()
    assert (made["status"], made["bytes"]) == ("processed", size), made
    time.sleep(2)
    after = served.memory().pss
    checked_from, checked_until = watch.checked
    mib, name = size / MIB, f"{way}/"
    detail: dict[str, object] = {"size_mib": round(mib), "rows": size // row, "before_mib": round(watch.before / MIB)}
    grown = Figure(
        NAME,
        f"{name}api_growth_mib",
        (watch.peak - watch.before) / MIB,
        "MiB",
        None,
        detail | {"after": round((after - watch.before) / MIB, 1)},
    )
    return [
        grown,
        Figure(NAME, f"{name}check_peak_mib", watch.check_peak / MIB, "MiB"),
        Figure(NAME, f"{name}receive_mib_s", mib / (sent - began), "MiB/s"),
        Figure(NAME, f"{name}check_mib_s", mib / (checked_until - checked_from), "MiB/s"),
        Figure(NAME, f"{name}store_mib_s", mib / (ended - checked_until), "MiB/s"),
        Figure(NAME, f"{name}processed_s", ended - began, "s"),
    ], str(made["id"])


def _length(way: str, size: int, row: int) -> int:
    """Bytes of the whole form."""
    around = sum(len(piece) for piece in body(way, 3 * row, row)) - 3 * row
    return around - len(str(3 + 1)) + len(str(size // row + 1)) + size


def download(served: Served, file_id: str, bar: Progress) -> Figure:
    """How much the API grows by while it sends the rows; nobody keeps them."""
    task = bar.add_task("downloading", total=None)
    with (
        served.client() as client,
        watched(served) as watch,
        client.stream("GET", f"/v1/files/{file_id}/content") as answer,
    ):
        answer.raise_for_status()
        received = _drain(answer, bar, task)
    detail: dict[str, object] = {"size_mib": round(received / MIB)}
    return Figure(NAME, "download/api_growth_mib", (watch.peak - watch.before) / MIB, "MiB", None, detail)


def _drain(answer: httpx.Response, bar: Progress, task: TaskID) -> int:
    received = 0
    for piece in answer.iter_raw():
        received += len(piece)
        bar.update(task, completed=received)
    return received


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--mib", type=int, help="size of the file (default 2048; with --quick 32)")
    made.add_argument("--row", type=int, default=1000, help="bytes of a row, at least 100 (default %(default)s)")
    made.add_argument("--ways", nargs="+", default=["declared", "chunked"], choices=("declared", "chunked"))
    options = made.parse_args(arguments)
    size = (options.mib or (32 if options.quick else 2048)) * MIB
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    figures, file_id = [], ""
    with (
        Progress(*columns, console=Console(stderr=True)) as bar,
        serving(TACIT_UPLOAD_LIMIT=str(size)) as served,
    ):
        with served.client() as client:  # what is made once is not growth: a small upload and a look at it
            small = answered(client.post("/v1/files", content=body("small", 10**5, 100), headers=_HEADERS))
            client.get(f"/v1/files/{small['id']}/content").raise_for_status()
        for way in options.ways:
            found, file_id = upload(served, way, size, options.row, bar)
            figures += found
        figures.append(download(served, file_id, bar))
    figures[0].detail.update(versions("fastapi", "uvicorn", "python-multipart", "obstore", "pyarrow"))
    report(figures, options.json)


if __name__ == "__main__":
    main()
