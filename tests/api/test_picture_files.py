"""Pictures over HTTP: what is taken and what is kept of it, what is refused and in which words, whose they are."""

import base64
import io
import json
import secrets
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image

from domain.files.binding import open_file
from domain.kit.tables import file
from domain.storage.blobs import open_store
from domain.storage.rows import read_rows
from tests.api.attacks import Browser, Call
from tests.api.conftest import PRIVATE, World
from tests.made_pictures import archive, drawing, encoded, huge_png, of_face, picture, table, zipped

FORM = PRIVATE | {"declared_size": "100", "labels": "publish"}
PUBLIC = {"purpose": "evals"}
UNDER = {name: value for name, value in FORM.items() if "[" not in name}


def seeds(count: int = 6) -> range:
    """Pictures that no other test has."""
    begin = 2 * secrets.randbelow(2**40)
    return range(begin, begin + count)


def put(world: World, content: bytes, form: dict[str, Any] = FORM, name: str = "scans.zip") -> dict[str, Any]:
    answer = world.upload(content, form, name=name)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def refused(world: World, content: bytes, form: dict[str, Any] = FORM, name: str = "scans.zip") -> dict[str, Any]:
    answer = world.upload(content, form, name=name)
    assert answer.status_code == 400, answer.text
    problem: dict[str, Any] = answer.json()
    return problem


def test_a_zip_is_taken_and_answers_its_resolution(world: World) -> None:
    """In the check's own process, as all uploads are."""
    made = put(world, archive(seeds()), FORM | {"resolution": "32"})
    assert (made["task"], made["resolution"], made["max_length"]) == ("image", 32, None)
    assert (made["labels"], made["status"], made["declared_size"]) == (["a", "b"], "processed", 100)
    report = made["report"]
    assert (report["read"], report["kept"], report["length"]) == (6, 6, None)
    assert (report["pictures"]["scaled_down"], report["pictures"]["resolution"]) == (6, 32)
    assert world.get(f"/v1/files/{made['id']}/report", "steward").json() == report
    seen = world.get(f"/v1/files/{made['id']}").json()
    assert (seen["resolution"], seen["max_length"], seen["bytes"]) == (32, None, 0)
    content = world.get(f"/v1/files/{made['id']}/content", "steward")
    lines = [json.loads(line) for line in content.text.splitlines()]
    assert [line["label"] for line in lines] == ["a", "b"] * 3
    assert all(line.keys() == {"image", "label"} for line in lines)
    assert {Image.open(io.BytesIO(base64.b64decode(line["image"]))).size for line in lines} == {(43, 32)}
    assert world.get(f"/v1/files/{made['id']}/content").status_code == 403
    texts = world.upload().json()
    assert (texts["resolution"], texts["max_length"]) == (None, 128)


@pytest.mark.usefixtures("quick_checks")
def test_rows_on_the_disk_are_sealed_and_bound(world: World) -> None:
    made = put(world, archive(seeds()))
    engine = world.engine("api")
    with engine.connect() as connection:
        row = connection.execute(sa.select(file).where(file.c.id == made["id"])).one()
        rows = read_rows(open_file(connection, open_store(world.settings, engine), row))
    assert (row.task, row.max_length, len(rows.columns["image"]), rows.labels) == ("image", 224, 6, [0, 1] * 3)


@pytest.mark.usefixtures("quick_checks")
def test_a_table_tells_its_task_by_its_column_or_by_name(world: World) -> None:
    rows = table(of_face([picture(i) for i in seeds()], "JPEG"), [0, 1] * 3, ["cat", "dog"])
    assert put(world, rows, FORM | {"task": "image"}, "scans.parquet")["labels"] == ["cat", "dog"]
    named = table([1] * 6, [0, 1] * 3, scan=[encoded(picture(i)) for i in seeds()])
    assert put(world, named, FORM | {"columns[image]": "scan"}, "scans.parquet")["task"] == "image"
    assert put(world, archive(seeds()), PUBLIC)["task"] == "image"


BAD = {
    "gigapixel": (zipped({"a/1.png": huge_png()}), "scans.zip", 1, "more than 67108864 pixels"),
    "svg": (zipped({"a/1.png": b"<svg/>"}), "scans.zip", 1, "JPEG, PNG and WebP are taken"),
    "climbing": (zipped({"../1.png": encoded(picture(1))}), "scans.zip", 1, "leads out of the archive"),
    "no zip": (b"words", "scans.zip", None, "cannot be read as a zip"),
    "a path": (
        table([{"bytes": None, "path": "/etc/x"}] * 2, [0, 1]),
        "scans.parquet",
        1,
        "put the bytes into the file",
    ),
    "cut": (table([encoded(picture(1))[:-50], b"x"], [0, 1]), "scans.parquet", 1, "cut off or broken"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_picture_is_named_by_its_place(world: World, case: str) -> None:
    content, name, line, words = BAD[case]
    problem = refused(world, content, FORM | {"task": "image"}, name)
    assert (problem["error"]["code"], problem["error"]["param"]) == ("invalid_file", "file")
    assert problem["errors"][0]["line"] == line
    assert words in problem["errors"][0]["message"]
    place = "the file" if line is None else f"{'row' if name.endswith('parquet') else 'entry'} {line}"
    assert place in problem["detail"]
    assert not list(open_store(world.settings, world.engine("api")).folder.joinpath("uploads").iterdir())  # type: ignore[union-attr]


WORDS: dict[str, tuple[dict[str, str], str, str, str]] = {
    "a length of pictures": ({"max_length": "64"}, "scans.zip", "max_length", "send resolution"),
    "a resolution of texts": ({"resolution": "64"}, "rows.csv", "resolution", "send max_length"),
    "a resolution too small": ({"resolution": "15"}, "scans.zip", "resolution", "16"),
    "a resolution too large": ({"resolution": "449"}, "scans.zip", "resolution", "448"),
    "pictures in CSV": ({"task": "image"}, "scans.csv", "task", "send Parquet"),
    "pictures in JSONL": ({"columns[image]": "scan"}, "scans.jsonl", "task", "or a zip"),
    "texts in a zip": ({"task": "pair"}, "scans.zip", "task", "send task=image"),
    "a column of texts with a zip": ({"columns[text]": "scan"}, "scans.zip", "task", "send task=image"),
    "a column of a zip": ({"columns[image]": "scan"}, "scans.zip", "columns.image", "a zip has no columns"),
    "users of a zip": ({"columns[user]": "who"}, "scans.zip", "columns.user", "send Parquet"),
    "another ending": ({"task": "image"}, "scans.tar", "file", ".zip"),
}


@pytest.mark.usefixtures("quick_checks")
@pytest.mark.parametrize("case", WORDS)
def test_a_form_that_does_not_fit_names_the_fix(world: World, case: str) -> None:
    form, name, param, words = WORDS[case]
    problem = refused(world, archive(seeds(2)), FORM | form, name)
    assert problem["error"]["param"] == param
    assert words in problem["detail"]


@pytest.mark.usefixtures("quick_checks")
def test_pictures_stay_with_their_first_budget(world: World) -> None:
    these = seeds(30)
    first = put(world, archive(these, make=drawing))
    for content in (
        archive(these, make=drawing, format="WEBP", lossless=True, top="top/"),
        archive(these[10:], make=drawing),
    ):
        again = put(world, content, FORM | {"resolution": "16"})
        assert (again["budget"], again["budget_inherited"], again["question"]) == (first["budget"], True, None)
    other = put(world, archive(seeds(30), make=drawing))
    assert other["budget"] != first["budget"]
    answer = world.upload(archive(these, make=drawing), UNDER | {"budget": other["budget"]}, name="x.zip")
    assert answer.json()["error"]["code"] == "overlapping_records"


@pytest.mark.usefixtures("quick_checks")
def test_changed_copies_wait_for_the_steward(world: World) -> None:
    these = seeds(30)
    first = put(world, archive(these, make=drawing))
    smaller = archive(these, lambda image: image.resize((120, 100)), drawing, format="JPEG", quality=60)
    asked = put(world, smaller)
    assert (asked["status"], asked["budget"], asked["resolution"]) == ("uploaded", None, 224)
    assert [one["budget"] for one in asked["question"]["budgets"]] == [first["budget"]]
    assert world.get(f"/v1/files/{asked['id']}").status_code == 404
    said = world.post(f"/v1/files/{asked['id']}/answer", {"answer": "same_population"}, "steward").json()
    assert (said["budget"], said["resolution"]) == (first["budget"], 224)
    assert said["report"]["pictures"]["median"] == 100


@pytest.mark.usefixtures("quick_checks")
def test_private_pictures_are_not_made_public_and_public_ones_flatter(world: World) -> None:
    these, open_ones = seeds(30), seeds(30)
    first = put(world, archive(these, make=drawing))
    waits = put(world, archive(these[:10], make=drawing, format="WEBP", lossless=True), PUBLIC)
    assert waits["question"]["answers"] == ["publish"]
    assert waits["question"]["budgets"][0]["budget"] == first["budget"]
    mirrored = archive(these, lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), drawing)
    assert put(world, mirrored, PUBLIC)["question"]["budgets"][0]["records"] >= 29
    published = put(world, archive(open_ones, make=drawing), PUBLIC)
    assert published["question"] is None
    private = put(world, archive(open_ones[:20], make=drawing))
    assert private["public_overlap"] == {published["id"]: 20}
    smaller = archive(open_ones, lambda image: image.resize((120, 100)), drawing)
    assert published["id"] in put(world, smaller, FORM | {"overlap": "same_population"})["public_overlap"]


@pytest.mark.usefixtures("quick_checks")
def test_pages_show_pictures_as_such(world: World) -> None:
    made = put(world, archive(seeds()), FORM | {"resolution": "32"})
    steward = Browser(world, world.keys["one"]["steward"])
    page = steward.send(Call("GET", f"/dashboard/files/{made['id']}")).text
    assert "Scaled down to 32 pixels" in page
    assert "Shorter side of a picture" in page
    assert "Words of a record" not in page
    budget = steward.send(Call("GET", f"/dashboard/budgets/{made['budget']}")).text
    assert "32 pixels" in budget
    form = steward.send(Call("GET", "/dashboard/files/new")).text
    assert 'name="resolution"' in form
    assert ".zip" in form


def test_a_job_of_pictures_is_planned_and_stated_as_one_of_pictures(world: World) -> None:
    """No page, answer or statement calls a picture a text, or its resolution tokens."""
    made = put(world, archive(seeds()), FORM | {"resolution": "32"})
    job = world.submit(made["id"], 1.0, model="small-seer")
    assert world.get(f"/v1/fine_tuning/jobs/{job['id']}").status_code == 200
    said = world.get(f"/v1/fine_tuning/jobs/{job['id']}/statement").json()
    assert (said["domain"]["max_length"], said["domain"]["resolution"]) == (None, 32)
    assert "pictures are kept with at most 32 pixels on the shorter side" in said["domain"]["sentence"]
    assert "tokens" not in said["domain"]["sentence"]
    assert "upright pixels" in said["unit"]["sentence"]
    other = world.post(
        "/v1/fine_tuning/jobs",
        {"model": "minilm-l6", "training_file": made["id"], "privacy": {"epsilon": 1}},
        "analyst",
    )
    assert (other.status_code, other.json()["error"]["code"]) == (400, "unsupported_task")
    assert "holds pictures, and minilm-l6 reads texts" in other.json()["detail"]
