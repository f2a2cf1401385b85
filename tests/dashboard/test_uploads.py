"""A steward uploads from the page: what is taken in, what is not and why, and what is not even kept."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, CDPSession, Page, expect

from api.files.upload import Form
from tests.api.conftest import wait_for
from tests.dashboard.conftest import PATIENCE, House, Open, log_in
from tests.dashboard.test_safety import sign_in
from tests.made_pictures import archive

CANARY = "canary of a row"


def rows(tag: str, count: int = 40, wrong: tuple[int, ...] = ()) -> bytes:
    """Labelled texts that are this tag's alone; of the wrong lines the label is none of those that were declared."""
    lines = [f"{tag} text number {i},{'fruit' if i % 2 else 'stone'}" for i in range(2, count + 2)]
    for line in wrong:
        lines[line - 2] = f"{CANARY},{CANARY}"
    return "\n".join(["text,label", *lines]).encode()


def choose(page: Page, **files: bytes) -> None:
    page.locator("#file").set_input_files(
        [{"name": f"{name}.csv", "mimeType": "text/csv", "buffer": content} for name, content in files.items()]
    )


def fill(page: Page, **fields: str) -> None:
    for name, value in fields.items():
        page.locator(f"[id='{name}']").fill(value)


def terms(page: Page, **others: str) -> None:
    fill(page, **{"privacy_budget.epsilon": "8", "labels": "fruit,stone", "declared_size": "40"} | others)


def upload(page: Page) -> None:
    page.get_by_role("button", name="Upload", exact=True).click()


def line(page: Page, name: str) -> Any:
    return page.locator("#queue > li").filter(has_text=f"{name}.csv")


def files(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.get("/v1/files", "steward", params={"limit": 1000}).json()["data"]
    return found


def parts(house: House) -> list[Path]:
    return list(Path(house.settings.blobs, "uploads").iterdir())


def test_a_file_is_chosen_checked_and_shown_with_its_report(house: House, open_page: Open) -> None:
    page = open_page("steward")
    page.get_by_role("link", name="Upload a file").click()
    choose(page, letters=rows("first"))
    expect(page.get_by_label("Most records of a user")).to_be_hidden()
    terms(page, **{"privacy_budget.name": "Letters of the year", "max_length": "32"})
    upload(page)
    expect(page.get_by_role("heading", name="letters.csv")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^Kept"))).to_contain_text("40")
    made = house.get(f"/v1/files/{page.url.rpartition('/')[2]}", "steward").json()
    assert (made["declared_size"], made["labels"], made["max_length"]) == (40, ["fruit", "stone"], 32)
    budget = house.get(f"/v1/budgets/{made['budget']}", "steward").json()
    assert (budget["name"], budget["epsilon"], budget["unit"]) == ("Letters of the year", 8, "record")
    page.goto(f"/dashboard/budgets/{made['budget']}")
    page.get_by_role("link", name="Upload a file").click()
    expect(page.get_by_label("Privacy budget", exact=True)).to_have_value(made["budget"])
    expect(page.get_by_label("Epsilon")).to_be_hidden()
    choose(page, more=rows("second"))
    page.get_by_label("Publish those that are in the file").check()
    page.get_by_label("Count them").check()
    upload(page)
    expect(page.get_by_role("heading", name="more.csv")).to_be_visible()
    more = house.get(f"/v1/files/{page.url.rpartition('/')[2]}", "steward").json()
    assert (more["budget"], more["declared_size"], more["labels"]) == (made["budget"], 40, ["fruit", "stone"])


def test_several_go_one_after_another_and_what_is_wrong_stands_beside_its_file(house: House, open_page: Open) -> None:
    page = open_page("steward")
    page.goto("/dashboard/files/new")
    choose(page, one=rows("one of several"), two=rows("two of several", wrong=(3, 17)))
    dropped = page.evaluate_handle(
        """text => { const all = new DataTransfer(); all.items.add(new File([text], "three.csv")); return all; }""",
        rows("three of several").decode(),
    )
    page.locator("#drop").dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.locator("#queue > li")).to_have_count(3)
    terms(page, **{"privacy_budget.name": "Several"})
    upload(page)
    expect(line(page, "three")).to_contain_text("Taken in.")
    expect(line(page, "one").get_by_role("link", name="See its report")).to_be_visible()
    wrong = line(page, "two").get_by_role("listitem")
    expect(wrong).to_have_text([re.compile("^Line 3: .*label"), re.compile("^Line 17: ")])
    assert CANARY not in page.content()
    known = {f["filename"]: f for f in files(house)}
    assert "two.csv" not in known
    assert known["one.csv"]["budget"] == known["three.csv"]["budget"]  # the first opened it
    expect(page.get_by_label("Privacy budget", exact=True)).to_have_value(known["one.csv"]["budget"])


def test_a_wrong_field_is_named_and_the_file_waits(house: House, open_page: Open) -> None:
    page = open_page("steward")
    page.goto("/dashboard/files/new")
    choose(page, again=rows("again"))
    terms(page, **{"privacy_budget.epsilon": "many"})
    upload(page)
    field = page.get_by_label("Epsilon")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("what all jobs.*number"))
    field.fill("8")
    line(page, "again").get_by_role("button", name="Send again").click()
    expect(page.get_by_role("heading", name="again.csv")).to_be_visible()


def test_a_public_set_asks_for_no_budget(house: House, open_page: Open) -> None:
    page = open_page("steward")
    page.goto("/dashboard/files/new")
    fill(page, declared_size="12")
    page.get_by_label("A public set").check()
    expect(page.get_by_label("Privacy budget", exact=True)).to_be_hidden()
    expect(page.get_by_label("Declared size")).to_be_hidden()
    choose(page, public=rows("public"))
    upload(page)
    expect(page.get_by_role("heading", name="public.csv")).to_be_visible()
    made = house.get(f"/v1/files/{page.url.rpartition('/')[2]}", "analyst").json()
    assert (made["purpose"], made["budget"]) == ("evals", None)


def test_a_file_that_waits_says_so_and_is_answered_for_on_its_page(house: House, open_page: Open) -> None:
    first = house.tickets(61)
    content = house.get(f"/v1/files/{first['id']}/content", "steward").text.splitlines()
    edited = [json.loads(one) for one in content]
    changed = "\n".join(json.dumps(one | {"text": f"{one['text']} and once more"}) for one in edited)
    page = open_page("steward")
    page.goto("/dashboard/files/new")
    page.locator("#file").set_input_files(
        [{"name": name, "mimeType": "", "buffer": changed.encode()} for name in ("edited.jsonl", "later.jsonl")]
    )
    labels = ",".join(first["labels"])
    terms(page, labels=labels, declared_size="400", **{"privacy_budget.name": "Theirs"})
    upload(page)
    items = page.locator("#queue > li")
    expect(items.nth(0)).to_contain_text("It waits for your answer")
    expect(items.nth(1)).to_contain_text("Not sent yet")
    items.nth(0).get_by_role("link", name="See its report").click()
    expect(page.get_by_role("heading", name="Waiting for your answer")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^Kept"))).to_be_visible()
    page.get_by_label("Answer", exact=True).select_option("the same people")
    page.get_by_role("button", name="Answer about edited.jsonl").click()
    expect(page.get_by_role("main")).to_contain_text("No budget was opened")
    expect(page.get_by_role("heading", name="Waiting for your answer")).to_have_count(0)
    made = house.get(f"/v1/files/{re.search('file-[0-9a-zA-Z]+', page.url)[0]}", "steward").json()
    assert (made["status"], made["budget"]) == ("processed", first["budget"])


class Wire:
    """An address that leads to the service, and can be cut: a browser that tries again by itself finds nothing."""

    def __init__(self, house: House) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = int(house.address.rpartition(":")[2])
        self._ends: list[socket.socket] = []
        self._down = False
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        self._down = True
        while self._ends:
            _close(self._ends.pop())

    def mend(self) -> None:
        self._down = False

    def end(self) -> None:
        self.cut()
        _close(self._listener)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._down:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._port))
                self._ends += near, far
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=pair, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    _close(target)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(house: House) -> Iterator[Wire]:
    made = Wire(house)
    yield made
    made.end()


def test_an_upload_that_is_cut_off_or_cancelled_says_so_keeps_nothing_and_is_sent_again(
    house: House, chromium: Browser, wire: Wire
) -> None:
    with chromium.new_context(base_url=wire.address) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        log_in(page, house.keys["one"]["steward"])
        page.goto("/dashboard/files/new")
        choose(page, long=rows("long", 3000))
        terms(page, declared_size="3000")
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        slow(network, 8_000)
        before = files(house)
        item = line(page, "long")
        upload(page)
        for how, words in (("cut", "The upload was cut off at"), ("cancel", "Cancelled. Nothing of it was kept.")):
            expect(item).to_contain_text(re.compile("[1-9] % is sent"))
            assert item.get_by_role("progressbar").evaluate("bar => bar.value") > 0
            assert len(parts(house)) == 1
            wire.cut() if how == "cut" else item.get_by_role("button", name="Cancel").click()
            expect(item).to_contain_text(words)
            wait_for(lambda: parts(house) == [])
            assert files(house) == before
            wire.mend()
            if how == "cancel":
                slow(network, -1)
            item.get_by_role("button", name="Send again").click()
        expect(page.get_by_role("heading", name="long.csv")).to_be_visible()
        assert parts(house) == []
        assert len(files(house)) == len(before) + 1


def slow(network: CDPSession, bytes_per_second: int) -> None:
    speed = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second}
    network.send("Network.emulateNetworkConditions", speed)


def test_a_form_that_is_not_ours_is_refused_before_a_byte_is_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the token, with another session's, or with one that comes after the file."""
    kept: list[int] = []
    keep = Form._file_data
    monkeypatch.setattr(Form, "_file_data", lambda self, data: (kept.append(len(data)), keep(self, data))[1])
    cookies, token = sign_in(house, house.keys["one"]["steward"])
    _, foreign = sign_in(house, house.keys["one"]["admin"])
    file = ("file", ("a.csv", rows("forged")))
    form = [(name, (None, text)) for name, text in FORM.items()]
    before = files(house)

    def send(*parts: Any, **headers: str) -> httpx.Response:
        return house.client.post("/dashboard/files", cookies=cookies, files=list(parts), headers=headers)

    ours, theirs = ("token", (None, token)), ("token", (None, foreign))
    for parts_sent, header in (
        ([file, *form], None),
        ([theirs, *form, file], None),
        ([file, ours, *form], None),
        ([*form, ours, file], None),
        (form, None),
        ([ours, *form, file], foreign),
    ):
        answer = send(*parts_sent, **({} if header is None else {"X-Form-Token": header}))
        assert (answer.status_code, "form" in answer.text) == (403, True), parts_sent
    assert (kept, files(house), parts(house)) == ([], before, [])
    assert send(ours, *form, ("extra", (None, "1")), file).status_code == 400
    assert send(ours, *form, file).status_code == 303
    assert len(files(house)) == len(before) + 1


FORM = {"purpose": "fine-tune", "privacy_budget[epsilon]": "8", "labels": "fruit,stone", "declared_size": "40"}


def test_a_file_may_be_as_large_as_in_the_api_and_no_larger(house: House) -> None:
    cookies, token = sign_in(house, house.keys["one"]["steward"])
    most = house.settings.upload_limit
    for size, status in ((most, 400), (most + 1, 413), (3 * most, 413)):
        sent = {"data": {"token": token} | FORM, "files": {"file": ("large.csv", b"x" * size)}}
        answer = house.client.post("/dashboard/files", cookies=cookies, **sent)
        assert answer.status_code == status
        assert parts(house) == []


def test_an_analyst_uploads_nothing(house: House, open_page: Open) -> None:
    cookies, token = sign_in(house, house.keys["one"]["analyst"])
    budget = house.tickets(62)["budget"]
    for path in ("budgets", f"budgets/{budget}"):
        assert "/dashboard/files/new" not in house.client.get(f"/dashboard/{path}", cookies=cookies).text
    assert house.client.get("/dashboard/files/new", cookies=cookies).status_code == 403
    before = files(house)
    sent = {"data": {"token": token} | FORM, "files": {"file": ("a.csv", rows("analyst's"))}}
    assert house.client.post("/dashboard/files", cookies=cookies, **sent).status_code == 403
    assert files(house) == before


def test_without_a_script_a_form_sends_one_and_comes_back_with_what_is_wrong(house: House, open_page: Open) -> None:
    page = open_page("steward", java_script_enabled=False)
    budget = house.tickets(63)["budget"]
    page.goto(f"/dashboard/files/new?budget={budget}")
    choose(page, plain=rows("plain", wrong=(5, 9)))
    fill(page, labels="fruit,stone", declared_size="400", max_length="32")
    upload(page)
    alert = page.get_by_role("alert")
    expect(alert.get_by_role("listitem")).to_have_text([re.compile("^Line 5: .*label"), re.compile("^Line 9: ")])
    assert CANARY not in page.content()
    fill(page, declared_size="39")
    choose(page, plain=rows("plain"))
    upload(page)
    expect(alert).to_contain_text("declared")
    expect(page.get_by_label("Privacy budget", exact=True)).to_have_value(budget)
    expect(page.get_by_label("Longest record")).to_have_value("32")
    fill(page, declared_size="400")
    choose(page, plain=rows("plain"))
    upload(page)
    expect(page.get_by_role("heading", name="plain.csv")).to_be_visible()
    made = house.get(f"/v1/files/{page.url.rpartition('/')[2]}", "steward").json()
    assert (made["budget"], made["declared_size"], made["max_length"]) == (budget, 400, 32)


def test_a_page_that_was_open_over_a_log_out_says_so(house: House, open_page: Open) -> None:
    page = open_page("steward")
    page.goto("/dashboard/files/new")
    choose(page, late=rows("late"))
    terms(page)
    other = page.context.new_page()
    other.goto("/dashboard/budgets")
    other.get_by_role("button", name="Log out").click()
    other.get_by_role("heading", name="Log in").wait_for()
    upload(page)
    expect(line(page, "late")).to_contain_text("Your session has ended: log in, and choose the file again.")


def test_a_zip_of_pictures_chooses_its_task_and_shows_what_counts(house: House, open_page: Open) -> None:
    page = open_page("steward")
    page.goto("/dashboard/files/new")
    expect(page.locator("#resolution")).to_be_hidden()
    page.locator("#file").set_input_files(
        [{"name": "scans.zip", "mimeType": "application/zip", "buffer": archive(range(500, 506))}]
    )
    expect(page.locator("#task")).to_have_value("image")
    expect(page.locator("#max_length")).to_be_hidden()
    fill(page, **{"privacy_budget.epsilon": "8", "labels": "a,b", "declared_size": "40", "resolution": "32"})
    upload(page)
    expect(page.get_by_role("heading", name="scans.zip")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^Scaled down to 32 pixels"))).to_contain_text("6")
    made = house.get(f"/v1/files/{page.url.rpartition('/')[2]}", "steward").json()
    assert (made["task"], made["resolution"], made["max_length"]) == ("image", 32, None)
