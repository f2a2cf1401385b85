"""Webhooks: what is told, to whom, how often, and what becomes of those who do not listen."""

import io
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.app import create_app
from cli.main import app as command
from domain.jobs import life
from domain.keeping.retention import forget_old
from domain.kit.database import make_engine
from domain.kit.ids import new_id
from domain.kit.settings import ApiSettings, BadSettings, from_environment
from domain.kit.statuses import ENDED
from domain.kit.tables import api_key, job, webhook, webhook_delivery
from domain.webhooks import herald as heralds
from domain.webhooks import sending
from domain.webhooks.hooks import MOST
from domain.webhooks.hosts import NotAllowed, require_allowed
from domain.webhooks.outbox import Outbox
from tests.api.conftest import JOBS, World, job_body, make_keys, make_settings, running
from tests.api.receiver import Receiver, documented, receiving
from tests.conftest import Database
from tests.dashboard.test_safety import sign_in

pytestmark = pytest.mark.usefixtures("quick_checks")
HOOKS = "/v1/webhooks"
ALL = ["job.ended", "approval.wanted", "budget.low", "budget.frozen"]
DAY = timedelta(days=1)


class Clock:
    """The database's, set forward by a test."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> sa.ColumnElement[Any]:
        return sa.func.clock_timestamp() + self.ahead


class Post:
    """The post office of the API, worked by hand."""

    def __init__(self, world: World, hosts: str) -> None:
        self.world, self.clock = world, Clock()
        settings = world.settings.model_copy(update={"webhook_hosts": hosts})
        self.outbox = Outbox(make_engine(world.database.api_url), self.clock)
        self.herald = heralds.Herald(self.outbox, settings)

    def turn(self, *others: heralds.Herald) -> int:
        """One turn of each, on threads of their own as in the API: a test's own thread may have a loop that runs."""
        with ThreadPoolExecutor(1 + len(others)) as pool:
            return sum(pool.map(heralds.Herald.turn, (self.herald, *others)))

    def deliver(self, *others: heralds.Herald) -> int:
        """All that is due now, by several at once; answers how many attempts that were."""
        self.outbox.look()
        made = 0
        while turned := self.turn(*others):
            made += turned
        return made

    def later(self, by: timedelta) -> None:
        self.clock.ahead += by


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as made:
        yield made


@pytest.fixture(scope="module")
def world(
    module_database: Database, redis_server: str, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver
) -> Iterator[World]:
    made = make_settings(module_database, redis_server, tmp_path_factory.mktemp("world"))
    settings = made.model_copy(update={"webhook_hosts": hosts_of(receiver)})
    keys = make_keys(module_database, settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heralds, "TURN", 3600.0)  # the tests turn by hand
        with TestClient(create_app(settings), follow_redirects=False) as client:
            yield World(module_database, settings, client, keys)


@pytest.fixture
def post(world: World, receiver: Receiver) -> Iterator[Post]:
    receiver.__init__(url=receiver.url)
    yield Post(world, hosts_of(receiver))
    for tenant in ("one", "two"):
        for hook in world.get(HOOKS, "steward", tenant=tenant).json()["data"]:
            assert world.call("DELETE", f"{HOOKS}/{hook['id']}", "steward", tenant).status_code == 200


def hosts_of(receiver: Receiver) -> str:
    return f"hooks.example, {receiver.url.split('/')[2]}"


def register(world: World, url: str, events: list[str] = ALL, tenant: str = "one", **more: Any) -> dict[str, Any]:
    answer = world.post(HOOKS, {"url": url, "events": events} | more, "steward", tenant=tenant)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def told(receiver: Receiver) -> list[tuple[str, dict[str, str]]]:
    return [(body["type"], body["data"]) for body in (json.loads(one.body) for one in receiver.arrivals)]


def listed(world: World) -> dict[str, Any]:
    (hook,) = world.get(HOOKS, "steward").json()["data"]
    found: dict[str, Any] = hook
    return found


def by_id(world: World) -> dict[str, dict[str, Any]]:
    return {hook["id"]: hook for hook in world.get(HOOKS, "steward").json()["data"]}


def jobs_that_wait(world: World, number: int) -> list[str]:
    """Copies of a job in the hands of a steward, as rows alone."""
    like = world.submit(world.private_file()["id"], 1.0)["id"]
    made = [new_id("ftjob", "-") for _ in range(number)]
    with world.engine("superuser").begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        columns = [column for column in job.c if column.name not in ("id", "status_detail")]
        names = ["id", "status_detail", *(column.name for column in columns)]
        copy = sa.select(sa.func.unnest(sa.cast(made, sa.ARRAY(sa.Text))), sa.literal(life.WAITING), *columns)
        c.execute(job.insert().from_select(names, copy.where(job.c.id == like)))
    return made


def end_all(world: World, jobs: list[str]) -> None:
    with world.engine("superuser").begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        for number, status in enumerate(ENDED):
            ended = {
                "status": status,
                "status_detail": None,
                "finished_at": sa.func.date_trunc("minute", sa.func.now()),
            }
            c.execute(sa.update(job).where(job.c.id.in_(jobs[number :: len(ENDED)])).values(**ended))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("events", [60, pytest.param(1000, marks=pytest.mark.verify)])
def test_events_arrive_in_order_though_a_fifth_of_the_attempts_fail(
    world: World, post: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    monkeypatch.setattr(sending, "SECONDS", 0.5)
    receiver.secret = register(world, receiver.url)["secret"]
    other = Post(world, hosts_of(receiver)).herald
    other._outbox._now = post.clock
    jobs = jobs_that_wait(world, events // 2)
    post.outbox.look()
    end_all(world, jobs)
    receiver.fails = 0.2
    attempts = post.deliver(other)
    while listed(world)["waiting"]:
        post.later(timedelta(minutes=1))
        attempts += post.deliver(other)
    arrived, ended = Counter[str](), defaultdict[str, list[str]](list)
    for one in receiver.arrivals:
        assert one.genuine
        assert int(one.headers["webhook-timestamp"]) % 60 == 0
        if one.acknowledged:
            arrived[one.headers["webhook-id"]] += 1
        about = json.loads(one.body)
        ended[about["data"]["job"]].append(about["type"] if one.acknowledged else f"({about['type']})")
    for id, order in ended.items():
        first = order.index("job.ended") if "job.ended" in order else len(order)
        assert "approval.wanted" in order[:first], f"{id}: {order}"
        assert not {"job.ended", "(job.ended)"} & set(order[: order.index("approval.wanted")]), f"{id}: {order}"
        assert "job.ended" in order
    assert len(arrived) == events
    failed = sum(number for fault, number in receiver.seen.items() if fault != "none")
    assert failed > events / 10
    assert (listed(world)["given_up"], set(ended)) == (0, set(jobs))
    for id in (jobs[0], jobs[1], jobs[2], jobs[-1]):
        nothing_private(world, receiver, id)
    twice = sum(number > 1 for number in arrived.values())
    print(f"\n{events} events, {attempts} attempts, {dict(receiver.seen)}, {twice} acknowledged more than once")


def nothing_private(world: World, receiver: Receiver, id: str) -> None:
    """Each word of a body is in what the API shows the hook's owner of the job."""
    row = world.get(f"{JOBS}/{id}", "steward").json()
    bodies = {one.body for one in receiver.arrivals if id in one.body.decode()}
    assert len(bodies) == 2, "the same bytes at each attempt"
    minutes = {
        f"{datetime.fromtimestamp(row[at] // 60 * 60, UTC):%Y-%m-%dT%H:%M:%SZ}" for at in ("created_at", "finished_at")
    }
    for body in map(json.loads, bodies):
        assert body.keys() == {"type", "timestamp", "data"}
        assert body["data"] in ({"job": row["id"]}, {"job": row["id"], "status": row["status"]})
        assert body["timestamp"] in minutes


def test_what_happens_to_jobs_is_told_once_and_to_their_tenant_alone(
    world: World, post: Post, receiver: Receiver
) -> None:
    before = world.submit(world.private_file()["id"], 1.0)["id"]
    world.post(f"{JOBS}/{before}/cancel")
    register(world, receiver.url)
    register(world, f"{receiver.url}/two", tenant="two")
    file = world.private_file()
    rules = {"approval_above": 0.5, "queue_days": 7, "reason": "r"}
    world.post(f"/v1/budgets/{file['budget']}/rules", rules, "steward")
    waits = world.submit(file["id"], 1.0)["id"]
    assert (post.deliver(), post.deliver()) == (1, 0)
    assert told(receiver) == [("approval.wanted", {"job": waits})]
    world.post(f"{JOBS}/{waits}/reject", {"reason": "a secret reason"}, "steward")
    assert (post.deliver(), post.deliver()) == (1, 0)
    assert told(receiver)[1] == ("job.ended", {"job": waits, "status": "cancelled"})
    assert b"reason" not in receiver.arrivals[1].body
    assert before not in str(told(receiver)), "that was before there was a hook"


def test_a_budget_is_told_of_once_at_each_crossing(world: World, post: Post, receiver: Receiver) -> None:
    already = world.private_file()
    world.post(f"/v1/budgets/{already['budget']}/freeze", {"reason": "r"}, "steward")
    register(world, receiver.url, ["budget.low", "budget.frozen"], low_below=0.2)
    file = world.private_file()
    for _ in range(2):
        small = world.post(JOBS, job_body(file["id"], privacy={"share": 0.5})).json()["id"]
        assert post.deliver() == 0
        large = world.post(JOBS, job_body(file["id"], privacy={"share": 0.35})).json()["id"]
        assert (post.deliver(), post.deliver()) == (1, 0)
        assert told(receiver)[-1] == ("budget.low", {"budget": file["budget"]})
        for id in (small, large):
            world.post(f"{JOBS}/{id}/cancel")
        assert post.deliver() == 0
    world.post(f"/v1/budgets/{file['budget']}/freeze", {"reason": "r"}, "steward")
    assert (post.deliver(), post.deliver()) == (1, 0)
    assert told(receiver)[2:] == [("budget.frozen", {"budget": file["budget"]})]


def test_a_receiver_that_answers_500_for_a_day_is_given_up_and_its_owner_is_told(
    world: World, post: Post, receiver: Receiver
) -> None:
    register(world, receiver.url)
    (id,) = jobs_that_wait(world, 1)
    receiver.status = 500
    assert post.deliver() == 1
    end_all(world, [id])
    pauses, attempts = [], 1
    asked = webhook_delivery.c.event == "approval.wanted"
    paused = webhook_delivery.c.due_at - webhook.c.last_failure_at
    while listed(world)["given_up"] == 0:
        with world.engine("api").connect() as c:
            of_hook = webhook.c.id == webhook_delivery.c.webhook_id
            pause, wait = c.execute(
                sa.select(paused, webhook_delivery.c.due_at - post.clock()).where(asked, of_hook)
            ).one()
        pauses.append(pause.total_seconds())
        post.later(max(wait, timedelta()))
        attempts += post.deliver()
    for number, wanted in enumerate((5, 10, 20, 40, 80)):
        assert wanted <= pauses[number] < 2 * wanted
    assert 3600 <= max(pauses) < 2 * 3600
    with world.engine("api").connect() as c:
        took = c.execute(
            sa.select(webhook_delivery.c.given_up_at - webhook_delivery.c.created_at).where(asked)
        ).scalar_one()
    assert DAY <= took < DAY + timedelta(hours=2)
    shown = listed(world)
    assert (shown["given_up"], shown["waiting"], shown["last_failure"]) == (1, 1, "it answered 500")
    assert shown["last_failure_at"] % 60 == 0
    order = [kind for kind, _ in told(receiver)]
    assert order == ["approval.wanted"] * (attempts - 1) + ["job.ended"], "the next waits until it is given up"
    receiver.status = 204
    post.later(timedelta(minutes=1))
    assert post.deliver() == 1
    assert listed(world)["last_success_at"] is not None
    print(f"\n500 for a day: {attempts} attempts, given up after {took}")


def test_a_host_that_hangs_holds_nobody_up_and_no_answer_is_read(
    world: World, post: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SECONDS", 2.0)
    with receiving(Receiver(fails=1, hang=4.0, faults=["hang"])) as slow:
        post.herald = Post(world, f"{hosts_of(receiver)}, {hosts_of(slow)}").herald
        post.herald._outbox._now = post.clock
        with world.engine("api").begin() as c:
            made = register(world, receiver.url)
            row = c.execute(sa.select(webhook).where(webhook.c.id == made["id"])).one()._asdict()
            kept = (
                "tenant_id",
                "created_by",
                "job_ended",
                "approval_wanted",
                "budget_low",
                "budget_frozen",
                "low_below",
            )
            values = {name: row[name] for name in kept} | {"salt": row["salt"], "url": slow.url}
            c.execute(webhook.insert().values(id="hook_slow", **values))
        jobs = jobs_that_wait(world, 20)
        receiver.endless = True
        post.outbox.look()
        post.turn()
        assert len(receiver.arrivals) == len(slow.arrivals) == 4, "as many of each at once"
        while (hooks := by_id(world))[made["id"]]["waiting"]:
            post.turn()
        assert len({one.body for one in receiver.arrivals}) == len(jobs)
    assert hooks["hook_slow"]["last_failure"] == "it did not answer within 2 seconds"
    assert hooks["hook_slow"]["last_success_at"] is None


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [((302, {"location": "http://localhost:1/"}), "it answered 302"), ((404, {}), "it answered 404")],
)
def test_a_redirect_is_not_followed(
    world: World, post: Post, receiver: Receiver, answer: tuple[int, dict[str, str]], trouble: str
) -> None:
    register(world, receiver.url)
    jobs_that_wait(world, 1)
    receiver.status, receiver.more = answer
    assert post.deliver() == 1
    assert listed(world)["last_failure"] == trouble


def test_nothing_is_sent_to_a_host_that_is_off_the_list_or_for_a_key_that_is_dead(
    world: World, post: Post, receiver: Receiver
) -> None:
    key = world.post("/v1/keys", {"name": "leaves", "scopes": ["steward"]}, "admin").json()
    headers = {"Authorization": f"Bearer {key['key']}"}
    assert world.client.post(HOOKS, json={"url": receiver.url, "events": ALL}, headers=headers).status_code == 201
    jobs_that_wait(world, 1)
    off = Post(world, "hooks.example")
    assert off.deliver() == 1
    assert "TACIT_WEBHOOK_HOSTS" in listed(world)["last_failure"]
    world.call("DELETE", f"/v1/keys/{key['id']}")
    post.later(timedelta(minutes=1))
    assert post.deliver() == 1
    assert "revoked" in listed(world)["last_failure"]
    assert receiver.arrivals == []


@pytest.mark.parametrize(
    ("url", "hosts", "word"),
    [
        ("https://hooks.example/x", "", "TACIT_WEBHOOK_HOSTS"),
        ("https://other.example/x", "hooks.example", "TACIT_WEBHOOK_HOSTS"),
        ("https://hooks.example:8443/x", "hooks.example", "TACIT_WEBHOOK_HOSTS"),
        ("https://sub.hooks.example/", "hooks.example", "TACIT_WEBHOOK_HOSTS"),
        ("https://hooks.example.evil.example/", "hooks.example", "TACIT_WEBHOOK_HOSTS"),
        ("https://hooks.example@evil.example/", "hooks.example", "no user"),
        ("https://evil.example#@hooks.example/", "hooks.example", "fragment"),
        ("https://10.0.0.1/", "hooks.example", "TACIT_WEBHOOK_HOSTS"),
        ("https://169.254.169.254/latest", "hooks.example", "TACIT_WEBHOOK_HOSTS"),
        ("https://localhost/", "hooks.example", "TACIT_WEBHOOK_HOSTS"),
        ("http://hooks.example/", "hooks.example", "https://"),
        ("https:///x", "hooks.example", "host"),
        ("https://hooks.example:99999/", "hooks.example", "TACIT_WEBHOOK_HOSTS"),
        ("https://hooks.example:x/", "hooks.example", "URL"),
    ],
)
def test_an_address_that_is_not_on_the_list_is_refused(url: str, hosts: str, word: str) -> None:
    with pytest.raises(NotAllowed, match=word):
        require_allowed(url, hosts)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://hooks.example/x?y=1", "other.example, hooks.example"),
        ("https://HOOKS.example:443/", "hooks.example"),
        ("https://10.0.0.1:8443/", "10.0.0.1:8443"),
        ("http://localhost:9000/", "localhost:9000"),
        ("http://[::1]:9000/", "[::1]:9000"),
    ],
)
def test_an_address_that_the_operator_names_is_taken(url: str, hosts: str) -> None:
    require_allowed(url, hosts)


def test_a_list_of_hosts_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TACIT_WEBHOOK_HOSTS", "https://hooks.example")
    with pytest.raises(BadSettings, match=r"TACIT_WEBHOOK_HOSTS: .*hosts with commas"):
        from_environment(ApiSettings)


def test_a_refusal_names_the_setting_and_registers_nothing(world: World, post: Post) -> None:
    refused = world.post(HOOKS, {"url": "https://elsewhere.example/", "events": ALL}, "steward")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "url")
    assert "TACIT_WEBHOOK_HOSTS" in refused.json()["detail"]
    for body in (
        {"url": "https://hooks.example/", "events": []},
        {"url": "https://hooks.example/", "events": ["job.started"]},
        {"url": "https://hooks.example/ x", "events": ALL},
        {"url": "https://hooks.example/", "events": ALL, "low_below": 1},
        {"url": "file:///etc/passwd", "events": ALL},
    ):
        assert world.post(HOOKS, body, "steward").status_code == 400, body
    assert world.get(HOOKS, "steward").json()["data"] == []
    for scope in ("analyst", "auditor"):
        assert world.post(HOOKS, {"url": "https://hooks.example/", "events": ALL}, scope).status_code == 403
        assert world.get(HOOKS, scope).status_code == 403


def test_there_are_a_hundred_at_most(world: World, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domain.webhooks.hooks.MOST", 2)
    assert MOST == 100
    for _ in range(2):
        register(world, "https://hooks.example/")
    refused = world.post(HOOKS, {"url": "https://hooks.example/", "events": ALL}, "steward")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "too_many_webhooks")


def test_the_secret_is_shown_once_and_kept_nowhere(world: World, post: Post, receiver: Receiver) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        made = register(world, f"{receiver.url}?token=abc", description="for the ward")
        receiver.status = 500
        jobs_that_wait(world, 1)
        post.deliver()
    finally:
        logging.getLogger().removeHandler(handler)
    assert "was not told" in stream.getvalue()
    assert "token=abc" not in stream.getvalue()
    assert "secret" not in listed(world)
    secret = made["secret"].removeprefix("whsec_")
    with world.engine("superuser").connect() as c:
        rows = c.execute(sa.text("SELECT webhook::text || encode(salt, 'base64') FROM webhook")).scalars().all()
    assert secret not in str(rows)
    with world.engine("superuser").begin() as c:  # whoever has the database moves it
        c.execute(sa.update(webhook).values(url=receiver.url))
    post.later(timedelta(minutes=1))
    post.deliver()
    first, moved = receiver.arrivals
    is_ours = documented()
    assert is_ours(made["secret"], first.headers, first.body)
    assert not is_ours(made["secret"], moved.headers, moved.body)
    assert not is_ours(made["secret"], first.headers, first.body.replace(b"approval", b"Approval"))
    assert not is_ours(made["secret"], first.headers | {"webhook-timestamp": "0"}, first.body)


def test_what_was_told_long_ago_is_forgotten_and_not_told_again(world: World, post: Post, receiver: Receiver) -> None:
    register(world, receiver.url)
    end_all(world, jobs_that_wait(world, 1))
    assert post.deliver() == 1
    with world.engine("superuser").begin() as c:
        aged = {"created_at": webhook_delivery.c.created_at - 31 * DAY, "delivered_at": sa.func.now() - 31 * DAY}
        c.execute(sa.update(webhook_delivery).values(**aged))
        c.execute(sa.update(webhook).values(looked_at=webhook.c.looked_at - 31 * DAY))
    forget_old(world.engine("api"), 365)
    assert post.deliver() == 0, "no process ran for a month: what was told then is still known"
    forget_old(world.engine("api"), 365)
    with world.engine("api").connect() as c:
        assert c.execute(sa.select(sa.func.count()).select_from(webhook_delivery)).scalar_one() == 0


def test_the_page_and_the_commands_do_the_same(world: World, post: Post) -> None:
    cookies, token = sign_in(world, world.keys["one"]["steward"])
    form = {"token": token, "url": "https://hooks.example/page", "low_below": "0.25", "tell.budget.low": "yes"}
    made = world.client.post("/dashboard/webhooks", data=form, cookies=cookies)
    assert (made.status_code, made.text.count("whsec_")) == (201, 1)
    assert listed(world) | {"id": ""} == listed(world) | {"id": "", "events": ["budget.low"], "low_below": 0.25}
    shown = world.client.get("/dashboard/webhooks", cookies=cookies).text
    assert "https://hooks.example/page" in shown
    assert "whsec_" not in shown
    gone = world.client.post(
        f"/dashboard/webhooks/{listed(world)['id']}/remove", data={"token": token}, cookies=cookies
    )
    assert (gone.status_code, world.get(HOOKS, "steward").json()["data"]) == (303, [])
    assert world.client.post("/dashboard/webhooks", data=form | {"url": "x"}, cookies=cookies).status_code == 400
    with running(create_app(world.settings)) as address:
        options = ["--url", address, "--key", world.keys["one"]["steward"]]
        for example in (["add", "https://hooks.example/tacit"], ["list"]):
            ran = CliRunner().invoke(command, ["webhooks", *example, *options])
            assert ran.exit_code == 0, ran.output
            assert ("whsec_" in ran.stdout) == (example[0] == "add")
        ran = CliRunner().invoke(command, ["webhooks", "remove", listed(world)["id"], "--yes", *options])
        assert ran.exit_code == 0, ran.output
    cookies, _ = sign_in(world, world.keys["one"]["analyst"])
    assert world.client.get("/dashboard/webhooks", cookies=cookies).status_code == 403


def test_a_key_of_another_tenant_is_no_owner(world: World, post: Post) -> None:
    made = register(world, "https://hooks.example/")
    assert world.call("DELETE", f"{HOOKS}/{made['id']}", "steward", "two").status_code == 404
    with world.engine("api").connect() as c:
        assert (
            c.execute(sa.select(api_key.c.tenant_id).where(api_key.c.id == made["created_by"])).scalar_one()
            == "tenant_one"
        )
