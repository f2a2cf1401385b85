"""What people do on the dashboard, in a real browser: plan, submit, watch, download, be refused, approve."""

import ast
import hashlib
import inspect
import json
import re
from typing import Any
from urllib.parse import urlencode

from openai import OpenAI
from playwright.sync_api import Locator, Page, expect

from api.dashboard import estimate, jobs
from api.jobs.schemas import Job
from dpcore.terms.methods import get_method, method_names
from tests.api.federated import METHOD, accept, invite
from tests.api.federated import method as method_of
from tests.dashboard.conftest import House, Open, log_in, working
from tests.dashboard.test_safety import sign_in
from tests.worker import tiny

OVER_USERS = "federated-lm"


def test_a_job_is_planned_submitted_watched_and_downloaded(house: House, open_page: Open) -> None:
    file = house.tickets(1)
    page = open_page("analyst")
    page.goto("/dashboard/estimate")
    page.get_by_label("Private file").select_option(file["id"])
    page.get_by_label("Base model").select_option("tiny")
    numbers = {"Share of the budget": "10 %", "Steps": "20", "Expected batch": "100", "Learning rate": "0.05"}
    fill(page, numbers | {"Name": "first try"})
    page.get_by_role("button", name="Estimate").click()
    expect(page.get_by_role("heading", name="This job fits")).to_be_visible()
    rows = page.get_by_role("table", name="This plan and its neighbours").get_by_role("row")
    sigmas = [float(rows.nth(i).locator("td").nth(4).inner_text()) for i in (1, 2, 3)]
    assert sigmas[1] < sigmas[0] < sigmas[2]  # half the steps, this plan, double the steps
    page.get_by_role("button", name="Submit this job").click()

    expect(page.get_by_role("heading", name="first try")).to_be_visible()
    job_id = page.url.rpartition("/")[2]
    expect(page.locator("#state")).to_contain_text("Place 1 in your queue")
    page.evaluate("window.stayed = true")
    with working(house, job_id) as gate:
        gate.open(5)
        expect(page.locator("#state")).to_contain_text("Step 5 of 20")
        expect(page.locator("#said")).to_have_text("Job running, 25 percent of the steps")
    expect(page.locator("#state .badge")).to_have_text("succeeded")
    expect(page.locator("#events")).to_contain_text("the adapter is released")
    assert page.evaluate("window.stayed")  # nothing was loaded anew
    with page.expect_download() as started:
        page.get_by_role("link", name="Download the adapter").click()
    digest = hashlib.sha256(started.value.path().read_bytes()).hexdigest()
    expect(page.locator("#results")).to_contain_text(digest)
    expect(page.locator("#receipt")).to_contain_text("settle")
    key = house.keys["one"]["analyst"]
    assert key not in page.content()
    expect(page.locator("#curl")).to_contain_text("Bearer $TACIT_KEY")
    page.goto(f"/dashboard/budgets/{file['budget']}")
    expect(page.get_by_role("table", name=re.compile("Used as each job"))).to_contain_text("first try")


def test_how_good_a_result_is_stands_on_its_page_and_in_lists(house: House, open_page: Open) -> None:
    texts, labels = tiny.rows(60, seed=77, mark="77")
    rows = "\n".join(json.dumps({"text": text, "label": tiny.LABELS[k]}) for text, k in zip(texts, labels, strict=True))
    form = {"purpose": "evals", "labels": ",".join(tiny.LABELS), "max_length": "16"}
    public = house.upload(rows.encode(), form, name="public.jsonl").json()
    job = house.job(house.tickets(21)["id"], validation_file=public["id"], suffix="measured")
    page = open_page("analyst")
    page.goto("/dashboard/jobs")
    row = page.get_by_role("row").filter(has_text="measured")
    expect(row.locator("[data-label=Quality]")).to_have_text("none")
    house.work(job["id"])
    quality = house.get(f"/v1/fine_tuning/jobs/{job['id']}").json()["quality"]
    assert quality["evaluated"] == 60
    page.reload()
    expect(row.locator("[data-label=Quality]")).to_have_text(f"{quality['value']:.3f}")
    page.goto(f"/dashboard/jobs/{job['id']}")
    results = page.locator("#results")
    for words in (
        f"{quality['value']:.3f}",
        f"{quality['standard_error']:.3f}",
        f"{quality['untrained']:.3f}",
        "0.500",
    ):
        expect(results).to_contain_text(words)
    expect(results.get_by_role("img", name=re.compile("Accuracy"))).to_be_visible()
    results.get_by_text("By label").click()
    expect(results.get_by_role("row").filter(has_text="fruit")).to_contain_text("30")
    page.get_by_role("link", name="Compare it with the other jobs").click()
    expect(page.get_by_role("img", name=re.compile("Accuracy against share.*1: measured"))).to_be_visible()
    same = page.get_by_role("table", name="The same jobs").get_by_role("row").filter(has_text="measured")
    expect(same).to_contain_text(f"{quality['value']:.3f} ± {quality['standard_error']:.3f}")
    expect(same.locator("[data-label=Share]")).to_contain_text("%")


def test_the_snippets_ask_for_the_same_job(house: House, open_page: Open) -> None:
    job = house.job(house.tickets(2)["id"], suffix="it's <b>quoted</b>", metadata={"team": "o'hara"})
    page = open_page("analyst")
    page.goto(f"/dashboard/jobs/{job['id']}")
    source = page.locator("#python").inner_text()
    sent: dict = {}

    class OpenAI:
        def __init__(self, **_: object) -> None:
            self.fine_tuning = self.jobs = self

        def create(self, *, extra_body: dict, **body: object) -> None:
            sent.update(body, **extra_body)

    exec(source.replace("from openai import OpenAI", "").replace('os.environ["TACIT_KEY"]', "''"), {"OpenAI": OpenAI})
    again = house.post("/v1/fine_tuning/jobs/estimate", sent).json()
    assert again["privacy"]["noise_multiplier"] == job["privacy"]["noise_multiplier"]
    assert again["method"] == job["method"]
    assert (sent["suffix"], sent["metadata"]) == (job["suffix"], job["metadata"])


def test_a_refusal_says_what_is_left_and_leads_to_what_fits(house: House, open_page: Open) -> None:
    file = house.tickets(3)
    page = open_page("analyst")
    page.goto(f"/dashboard/estimate?training_file={file['id']}&model=tiny&epsilon=6&steps=20&batch_size=100")
    expect(page.get_by_role("heading", name="This job fits")).to_be_visible()
    house.job(file["id"], epsilon=7)  # somebody else comes first
    page.get_by_role("button", name="Submit this job").click()
    expect(page.get_by_role("heading", name="The budget has no room for this job")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("Nothing was charged")
    page.get_by_role("link", name=re.compile("Plan it with .* % of the budget")).click()
    expect(page.get_by_role("heading", name="This job fits")).to_be_visible()
    assert 0 < float(page.get_by_label("Share of the budget").input_value().removesuffix(" %")) < 60
    page.get_by_role("button", name="Submit this job").dblclick()  # a second click is the same job
    expect(page.locator("#state .badge")).to_have_text("queued")
    assert len([j for j in house.get("/v1/fine_tuning/jobs").json()["data"] if j["training_file"] == file["id"]]) == 2


def test_a_wrong_field_is_named(house: House, open_page: Open) -> None:
    file = house.tickets(4)
    page = open_page("analyst")
    wrong = {"share=two": "25 %", "share=0": "more than nothing", "share=1.5": "1.5 %", "share=NaN": "25 %"}
    wrong |= {"share=101 %25": "whole budget", "share=25 %25&epsilon=1": "one of them", "epsilon=two": "valid number"}
    for price, words in wrong.items():
        page.goto(f"/dashboard/estimate?training_file={file['id']}&model=tiny&{price}")
        field = page.get_by_label("Share of the budget" if "share" in price else "or epsilon", exact=True)
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile(words))


def test_advanced_options_are_found_by_keyboard_checked_in_place_and_asked_for(house: House, open_page: Open) -> None:
    file = house.tickets(8)
    page = open_page("analyst")
    page.goto(f"/dashboard/estimate?training_file={file['id']}&model=tiny&epsilon=2&steps=20&batch_size=100")
    expect(page.get_by_label("Clip norm")).to_be_hidden()
    page.get_by_label("What it is for").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wishes = {"clipping": "adaptive", "clip_norm": "0.5", "optimizer": "sgd", "weight_averaging": "0.9"}
    for name, wish in wishes.items():
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == name
        expect(page.locator(":focus")).to_have_accessible_description(re.compile(r"\w+\."))
        page.keyboard.type("none" if name == "clip_norm" else wish)
    page.keyboard.press("Enter")
    for label, complaint, better in (("Clip norm", "valid number", "0.5"), ("Learning rate", "sgd needs", "0.1")):
        field = page.get_by_label(label, exact=True)
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile(complaint))
        field.fill(better)
        expect(page.get_by_label("Weight averaging")).to_be_visible()  # what is not as usual is not hidden
        page.keyboard.press("Enter")
    page.get_by_role("button", name="Submit this job").click()
    page.locator("#state").wait_for()
    job = house.get(f"/v1/fine_tuning/jobs/{page.url.rpartition('/')[2]}").json()
    numbers = job["method"]["lora"]["hyperparameters"]
    assert {name: str(numbers[name]) for name in wishes} == wishes


def test_a_job_of_two_phases_is_planned_by_share_followed_and_planned_again(house: House, open_page: Open) -> None:
    """All that was asked for is asked for again: the price, the method's options, each number of training."""
    file = house.tickets(12)
    page = open_page("analyst")
    page.goto(f"/dashboard/estimate?training_file={file['id']}&model=tiny")
    page.get_by_label("Method").select_option("bitfit")
    fill(page, {"Share of the budget": "30%", "Steps": "12", "Expected batch": "100", "Name": "twice"})
    page.get_by_text("Advanced", exact=True).click()
    page.get_by_label("Clipping", exact=True).select_option("flat")
    page.get_by_label("Optimizer").select_option("adam-bc")
    fill(page, {"Clip norm": "0.5", "Weight averaging": "0.9"})
    expect(page.get_by_text("Options of").filter(visible=True)).to_have_text(["Options of bitfit"])
    page.get_by_text("Options of bitfit").click()
    fill(page, {"Full steps of bitfit": "8", "Full learning rate of bitfit": "0.003"})
    page.get_by_role("button", name="Estimate").click()
    expect(page.get_by_role("heading", name="This job fits")).to_be_visible()
    phases = page.get_by_role("table", name=re.compile("Phases, in order"))
    expect(phases).to_contain_text("everything")
    expect(phases.get_by_role("row")).to_have_count(3)
    page.get_by_role("button", name="Submit this job").click()
    page.locator("#state").wait_for()
    job_id = page.url.rpartition("/")[2]
    job = house.get(f"/v1/fine_tuning/jobs/{job_id}").json()
    assert job["privacy"]["asked"] == "share"
    with working(house, job_id) as gate:
        gate.open(9)
        expect(page.locator("#state")).to_contain_text("Step 9 of 20")
        expect(page.get_by_role("row", name=re.compile("^everything"))).to_contain_text("8 of 8")
        expect(page.get_by_role("row", name=re.compile("^biases"))).to_contain_text("1 of 12")
        expect(page.locator("#events")).to_contain_text("Phase biases: step 9 of 20")
    page.get_by_role("link", name="Plan another like it").click()
    expect(page.get_by_label("Full steps of bitfit")).to_have_value("8")
    expect(page.get_by_text("This job was done before with the same numbers")).to_be_visible()
    again = house.post("/v1/fine_tuning/jobs/estimate", jobs.request_of(Job.model_validate(job))).json()
    assert (again["method"], again["privacy"]["share"]) == (job["method"], job["privacy"]["share"])


def test_text_that_is_sampled_is_planned_again_and_by_the_form(house: House) -> None:
    file = house.letters(23)["id"]
    odd = [" indented", "ends ", "[" * 9_000, "Two\nlines", '{"prompt": "a text"}', '{"price": 5}', "7"]
    prompts = [{"prompt": "Dear all,", "weight": 3}, "Hello", *odd]
    wanted = {
        "records": 12,
        "max_new_tokens": 9,
        "prompts": prompts,
        "temperature": 0.5,
        "top_p": 0.75,
        "seed": 2**60 + 1,
    }
    body = {"model": "writer", "training_file": file, "privacy": {"share": 0.05}, "synthetic": wanted}
    body["method"] = {"type": "lora", "lora": {"hyperparameters": {"steps": 7}}}
    job = Job.model_validate(house.post("/v1/fine_tuning/jobs", body).json())
    query = jobs.query_of(jobs.request_of(job))
    again = estimate.body_of({key: str(value) for key, value in query.items()})
    assert again.synthetic == job.synthetic
    cookies, _ = sign_in(house, house.keys["one"]["analyst"])
    page = house.client.get("/dashboard/estimate", params=query, cookies=cookies).text
    assert "tokens at most, sampled after training" in page
    refused = house.client.get("/dashboard/estimate", params=query | {"synthetic": ""}, cookies=cookies)
    assert refused.status_code == 400
    assert 'id="wrong-synthetic"' in refused.text
    assert 'id="sampling" open' in refused.text
    wrong = {"temperature": "3", "top_p": "x", "seed": "-1", "prompts": '{"prompt": "a", "weight": 0}'}
    for name, text in wrong.items():
        refused = house.client.get("/dashboard/estimate", params=query | {f"synthetic_{name}": text}, cookies=cookies)
        assert f'id="wrong-synthetic_{name}"' in refused.text, name


def test_the_package_takes_what_the_page_says_in_python() -> None:
    """What is a keyword there is one of the stock client's; whatever else there is goes along in extra_body."""
    stock = inspect.signature(OpenAI(api_key="k", base_url="http://localhost/v1").fine_tuning.jobs.create).parameters
    body: dict[str, Any] = {"model": "m", "training_file": "f", "method": {"type": "lora"}, "seed": 1, "suffix": "s"}
    body |= {"validation_file": "v", "metadata": {"a": "b"}}
    ours = {"privacy": {"share": 0.1}, "measure": {"share": 0.01}, "intended_use": "u", "synthetic": {"records": 1}}
    (call,) = [
        node
        for node in ast.walk(ast.parse(jobs.python("http://localhost", body | ours)))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("jobs.create")
    ]
    said = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert said == body | {"extra_body": ours}
    assert said.keys() <= stock.keys()


def test_every_option_of_every_method_is_planned_again(house: House) -> None:
    """What each takes, at values that are not its own; and zo's on all weights, where the others are refused."""
    file = house.tickets(13)
    unusual = {"r": 3, "alpha": 5.0, "dropout": 0.25, "target_modules": ["query", "key"], "reduction": 4, "width": 4}
    unusual |= {"full_steps": 3, "full_learning_rate": 0.5, "directions": 3, "scale": 0.25, "clip_norm": 0.5}
    unusual |= {"weight_averaging": 0.5, "clipping": "flat", "optimizer": "sgd", "steps": 7, "batch_size": 50}
    unusual |= {"learning_rate": 0.125, "head": "random", "views": 1}
    unusual |= {"teacher_trains": "full", "student_layers": [0], "temperature": 2.0, "mixing": 0.5}
    unusual |= {"teacher_steps": 3, "teacher_learning_rate": 0.25}
    unusual |= {"student_sparsity": 0.25}
    unusual |= {"factors": "alternating", "server": "fedavg", "server_learning_rate": 0.5, "rounds": 6}
    unusual |= {"local_steps": 2, "least_silos": 1, "round_seconds": 7.5, "patience_seconds": 70.0, "masked": True}
    apart = {"weights", "blocks", "teacher", "teacher_model", "teacher_job", "student_model", "silos"}
    """Beside these, other options are refused."""
    unusual |= {"rows": 7, "chosen_by": "private", "loss": "nce", "negatives": 5, "local_batch": 3, "most_tokens": 50}
    blocks = [("zo", {"weights": "all", "hyperparameters": {"steps": 7}})]
    pruned = {
        "sparsity": 0.25,
        "scope": "matrix",
        "when": "schedule",
        "rounds": 2,
        "first": 2,
        "last": 4,
        "rewind": True,
    }
    adapted = {
        "weights": "lora",
        "r": 3,
        "alpha": 5.0,
        "target_modules": ["query", "key"],
        "hyperparameters": {"steps": 7},
    }
    blocks += [("prune", pruned | {"hyperparameters": {"steps": 7}}), ("prune", adapted)]  # not all of it at once
    for name in method_names():
        if name == "prune":
            continue
        method = get_method(name)
        numbers = {number: unusual[number] for number in method.Request.model_fields}
        if name == "zo":
            numbers["optimizer"] = "adamw"  # sgd is its own
        options = {option: unusual[option] for option in method.Options.model_fields if option not in apart}
        assert not {**method.Options.model_fields, **method.Request.model_fields}.keys() - {*unusual, *apart}
        if name == METHOD:  # it takes no steps, averaging or dropout
            numbers |= {"steps": "auto", "weight_averaging": 0.0}
            options |= {"dropout": 0.0, "clipping": "delta"}
            asked = method_of(**options, hyperparameters=numbers)
            options["silos"] = []
            for seed in (14, 17):
                invited = invite(house, file["id"], "tenant_one", model="tiny", method=asked).json()["id"]
                other = house.tickets(seed)["id"]
                assert accept(house, invited, other, tenant="one", privacy={"share": 0.05}).status_code == 200
                options["silos"].append(invited)
        if name == OVER_USERS:
            options["target_modules"] = ["c_attn", "c_proj"]
        blocks.append((name, options | {"hyperparameters": numbers}))
    blocks.append(
        (OVER_USERS, {"rows": "all", "blocks": "none", "hyperparameters": {"steps": 7, "clipping": "adaptive"}})
    )
    letters = house.letters(19)["id"]
    cookies, _ = sign_in(house, house.keys["one"]["analyst"])
    for name, block in blocks:
        body = {"model": "tiny", "training_file": file["id"], "method": {"type": name, name: block}}
        if name == OVER_USERS:
            body |= {"model": "writer", "training_file": letters}
        made = house.post("/v1/fine_tuning/jobs", body | {"privacy": {"share": 0.05}})
        assert made.status_code == 201, made.text
        job = Job.model_validate(made.json())
        query = jobs.query_of(jobs.request_of(job))
        body = estimate.body_of({key: str(value) for key, value in query.items()}).model_dump(mode="json")
        again = house.post("/v1/fine_tuning/jobs/estimate", body).json()
        assert (again["method"], again["privacy"]["share"]) == (made.json()["method"], job.privacy.share)
        page = house.client.get("/dashboard/estimate", params=query, cookies=cookies)
        assert page.status_code == 200, page.text
        assert f"{job.privacy.noise_multiplier:.4f}" in page.text


def test_two_tenants_learn_together_on_their_pages(house: House, open_page: Open) -> None:
    file, theirs = house.tickets(15), house.tickets(16, tenant="two")
    asked = method_of(rounds=4)
    invited = invite(house, file["id"], model="tiny", method=asked, note="the study of May").json()["id"]
    guest, host = open_page(""), open_page("analyst")
    log_in(guest, house.keys["two"]["steward"])
    guest.get_by_role("link", name="Invitations").click()
    guest.locator("#received").get_by_role("link", name="tenant_one").click()
    expect(guest.get_by_text("the study of May")).to_be_visible()
    guest.get_by_role("button", name="See the price").click()
    expect(guest.get_by_role("alert")).to_contain_text("epsilon or share")
    guest.get_by_label("Your file").select_option(theirs["id"])
    guest.get_by_label("Share of its budget").fill("0.25")
    guest.get_by_role("button", name="See the price").click()
    expect(guest.get_by_role("heading", name="This fits")).to_be_visible()
    guest.get_by_role("button", name="Accept and reserve").click()
    expect(guest.locator("#state")).to_contain_text("waits for the federated job")
    expect(guest.locator("#state")).to_contain_text("one silo of a federated job")
    part = guest.url

    host.goto("/dashboard/invitations")
    expect(host.locator("#sent")).to_contain_text("accepted")
    form = {"training_file": file["id"], "model": "tiny", "method": METHOD, "share": "0.2", "batch_size": "20"}
    form |= {f"{METHOD}.{name}": value for name, value in (("r", "2"), ("rounds", "4"), ("silos", invited))}
    host.goto(f"/dashboard/estimate?{urlencode(form)}")
    expect(host.get_by_text("the price of your own silo")).to_be_visible()
    host.get_by_role("button", name="Submit this job").click()
    expect(host.locator("#silos")).to_contain_text("Round 0 of 4. A message is")
    rows = host.get_by_role("table", name="Silos of this job").get_by_role("row")
    expect(rows.nth(1)).to_contain_text("your own file")
    expect(rows.nth(2)).to_contain_text("tenant_two")
    expect(rows.nth(2)).to_contain_text("waits for a round")
    guest.goto(part)
    expect(guest.locator("#silos")).to_contain_text("Round 0 of 4. This silo sent 0 and missed 0.")
    assert "silo-1" not in guest.content()

    guest.goto(f"/dashboard/invitations/{invited}")
    guest.get_by_text("Withdraw from the federated job").click()
    guest.get_by_role("button", name="Withdraw the invitation").click()
    expect(guest.get_by_role("heading", name="Withdrawn")).to_be_visible()
    host.reload()
    expect(rows.nth(2)).to_contain_text("has left")


def test_a_job_is_paused_resumed_and_cancelled(house: House, open_page: Open) -> None:
    job = house.job(house.tickets(5)["id"])
    page = open_page("analyst")
    page.goto(f"/dashboard/jobs/{job['id']}")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#state")).to_contain_text("for 7 days at most")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#state")).to_contain_text("Place")
    page.get_by_text("Cancel this job").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator("#state .badge")).to_have_text("cancelled")
    expect(page.get_by_text("Cancel this job")).to_have_count(0)


def test_a_steward_approves_what_waits_and_grants_and_revokes(house: House, open_page: Open) -> None:
    file = house.tickets(6)
    page = open_page("steward")
    page.goto(f"/dashboard/budgets/{file['budget']}")
    page.get_by_text("Revoke what lab may use").click()
    page.get_by_role("button", name="Revoke the grant of lab").click()
    assert house.get(f"/v1/budgets/{file['budget']}").status_code == 404
    page.get_by_text("Let someone use this budget").click()
    terms = {"Share": "0.9", "Last day": "2031-01-31", "Approval above epsilon": "1"}
    fill(page.locator("#granting"), {"or project": "lab"} | terms)
    page.get_by_role("button", name="Grant", exact=True).click()
    given = page.get_by_role("table", name="Who may use this budget").get_by_role("row").filter(has_text="31 Jan 2031")
    expect(given).to_contain_text("project lab")
    expect(given).to_contain_text("90 %")
    job = house.job(file["id"], epsilon=2)
    page.goto(f"/dashboard/jobs/{job['id']}")
    expect(page.locator("#state")).to_contain_text("waits for a steward's approval")
    page.get_by_role("button", name="Approve and run").click()
    expect(page.locator("#state")).to_contain_text("Place")
    assert house.get(f"/v1/fine_tuning/jobs/{job['id']}").json()["status_detail"] is None


def test_the_whole_way_by_keyboard(house: House, open_page: Open) -> None:
    file = house.tickets(7)
    page = open_page("")
    page.goto("/dashboard/")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(house.keys["one"]["analyst"])
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Budgets", level=1).wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    tab_to(page, "New job")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Plan a job").wait_for()
    tab_to(page, "training_file")
    page.keyboard.type("file-")  # selects by the first letters
    page.get_by_label("Private file").select_option(file["id"])
    tab_to(page, "model")
    page.keyboard.type("tiny")
    for name, text in (("epsilon", "1"), ("steps", "20")):
        tab_to(page, name)
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="This job fits").wait_for()
    tab_to(page, "submit")
    page.keyboard.press("Enter")
    page.locator("#state").wait_for()
    tab_to(page, "cancel-ask")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#state .badge")).to_have_text("cancelled")


def test_it_works_without_javascript(house: House, open_page: Open) -> None:
    file = house.tickets(10)
    page = open_page("analyst", java_script_enabled=False)
    page.goto(f"/dashboard/estimate?training_file={file['id']}&model=tiny&epsilon=1&steps=20")
    page.get_by_role("button", name="Submit this job").click()
    expect(page.locator("#state .badge")).to_have_text("queued")
    assert page.locator('noscript meta[http-equiv="refresh"]').count() == 1


def test_a_hidden_tab_asks_for_nothing_and_an_unchanged_page_costs_304(house: House, open_page: Open) -> None:
    job = house.job(house.tickets(9)["id"])
    page = open_page("analyst")
    answers: list[int] = []
    page.goto(f"/dashboard/jobs/{job['id']}")
    page.on("response", lambda answer: answers.append(answer.status))
    page.clock.install()
    page.reload()
    for _ in range(3):
        with page.expect_response(lambda answer: answer.url.endswith(job["id"])):
            page.clock.run_for(4_000)
    assert answers[-1] == 304
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
    before = len(answers)
    page.clock.run_for(30_000)
    page.wait_for_timeout(200)
    assert len(answers) == before
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(500)
    assert len(answers) == before + 1


def fill(page: Page | Locator, values: dict[str, str]) -> None:
    for label, value in values.items():
        page.get_by_label(label, exact=True).fill(value)


def tab_to(page: Page, target: str) -> None:
    """Press Tab until the element with this id or text has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        here = page.evaluate("[document.activeElement.id, document.activeElement.textContent.trim()]")
        if target in here:
            return
    raise AssertionError(f"the keyboard does not reach {target}")


def test_a_steward_answers_what_only_a_steward_can_say(house: House, open_page: Open) -> None:
    """A public file with private texts: it waits on the list of budgets, and is withdrawn or published there."""
    first = house.tickets(11)
    lines = house.get(f"/v1/files/{first['id']}/content", "steward").content
    page = open_page("steward")
    for answer in ("withdraw the file", "they may be public"):
        waiting = house.upload(lines, {"purpose": "evals"}, name="public.jsonl").json()
        assert waiting["status"] == "uploaded"
        page.goto("/dashboard/budgets")
        asked = page.get_by_role("region", name="Waiting for your answer")
        expect(asked).to_contain_text("public.jsonl")
        expect(asked).to_contain_text(f"private records of {first['budget']}")
        asked.get_by_label("Answer").select_option(answer)
        asked.get_by_label("Reason").fill("a published collection")
        asked.get_by_role("button").click()
        expect(page.get_by_role("region", name="Waiting for your answer")).to_have_count(0)
    assert house.get(f"/v1/files/{waiting['id']}", "analyst").status_code == 200
