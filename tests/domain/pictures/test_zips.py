"""A zip of pictures: its classes, and all that is no such zip."""

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from domain.ingest.pictures import bounds, zip_directory, zips
from domain.ingest.problems import Problems
from tests.domain.pictures.checking import found, run
from tests.made_pictures import encoded, picture, zipped

GOOD = {f"{label}/{i}.png": encoded(picture(10 * i + place)) for place, label in enumerate("ab") for i in range(3)}
CANARY = "canary-55aa"


def link(name: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, b"/etc/passwd"


def with_flag(data: bytes) -> bytes:
    """The same archive, whose first entry says that it is encrypted."""
    place = data.index(b"PK\x01\x02")
    local = data.index(b"PK\x03\x04")
    changed = bytearray(data)
    changed[place + 8] |= 1
    changed[local + 6] |= 1
    return bytes(changed)


@pytest.mark.parametrize("top", ["", "train/", "set/train/", "./", "set\\train\\"])
def test_a_folder_is_a_class_at_the_top_or_below_one(tmp_path: Path, top: str) -> None:
    report, rows = run(tmp_path, zipped({f"{top}{name}": data for name, data in GOOD.items()}, zipfile.ZIP_DEFLATED))
    assert (report.problems, report.labels, report.units) == ([], ["a", "b"], 6)
    assert rows is not None
    assert rows.labels == [0, 0, 0, 1, 1, 1]


def test_what_programs_leave_behind_is_passed_over(tmp_path: Path) -> None:
    junk = ["__MACOSX/a/._1.png", "a/.DS_Store", "Thumbs.db", "b/desktop.ini", "a/._2.png", ".DS_Store"]
    report, _ = run(tmp_path, zipped(GOOD | dict.fromkeys(junk, b"x")))
    assert (report.problems, report.labels, report.units) == ([], ["a", "b"], 6)


ENTRIES = {
    "climbs": ([("../a/x.png", GOOD["a/1.png"])], "climbing_path"),
    "climbs from inside": ([("a/../../x.png", GOOD["a/1.png"])], "climbing_path"),
    "climbs by backslash": ([("a\\..\\..\\x.png", GOOD["a/1.png"])], "climbing_path"),
    "absolute": ([("/etc/x.png", GOOD["a/1.png"])], "climbing_path"),
    "a drive": ([("C:\\a\\x.png", GOOD["a/1.png"])], "climbing_path"),
    "link": ([link("a/x.png")], "not_a_file"),
    "outside": ([("x.png", GOOD["a/1.png"])], "outside_classes"),
    "too deep": ([("a/b/x.png", GOOD["a/1.png"])], "too_deep"),
    "words": ([(f"a/{CANARY}.txt", CANARY.encode())], "not_a_picture"),
    "svg": ([("a/x.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>")], "not_a_picture"),
    "nested": ([("a/x.zip", zipped(GOOD))], "not_a_picture"),
    "cut": ([("a/x.png", GOOD["a/1.png"][:-30])], "broken_picture"),
    "empty": ([("a/x.png", b"")], "not_a_picture"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_a_bad_entry_is_a_problem_of_its_number(tmp_path: Path, case: str) -> None:
    entries, code = ENTRIES[case]
    report, _ = run(tmp_path, zipped([*GOOD.items(), *entries]))
    assert found(report) == [(7, code)]
    assert CANARY not in report.model_dump_json()
    assert not (tmp_path.parent / "x.png").exists()


def test_a_wrong_ending_is_taken_for_what_is_inside(tmp_path: Path) -> None:
    report, _ = run(tmp_path, zipped(GOOD | {"a/x.png": encoded(picture(77), "JPEG"), "b/noend": GOOD["a/1.png"]}))
    assert report.problems == []


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    report, _ = run(tmp_path, with_flag(zipped(GOOD)))
    assert found(report) == [(1, "encrypted")]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_compress_are_refused(tmp_path: Path, method: int) -> None:
    report, _ = run(tmp_path, zipped(GOOD, method))
    assert {problem.code for problem in report.problems} == {"compression"}


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped([*GOOD.items(), ("a/1.png", encoded(picture(99)))])
    report, _ = run(tmp_path, twice)
    assert found(report) == [(2, "repeated_name"), (7, "repeated_name")]


def test_two_classes_that_differ_in_case_are_refused_unless_both_are_named(tmp_path: Path) -> None:
    alike = zipped(GOOD | {"A/x.png": encoded(picture(99))})
    report, _ = run(tmp_path, alike)
    assert found(report) == [(None, "alike_classes")]
    assert run(tmp_path, alike, labels=["a", "A", "b"])[0].problems == []


def test_one_class_in_two_spellings_of_unicode_is_one(tmp_path: Path) -> None:
    names = zipped({"e\u0301/1.png": GOOD["a/1.png"], "\u00e9/2.png": GOOD["a/2.png"], "b/3.png": GOOD["b/1.png"]})
    assert run(tmp_path, names)[0].labels == ["b", "\u00e9"]


def test_a_class_with_one_picture_is_a_question(tmp_path: Path) -> None:
    report, _ = run(tmp_path, zipped(GOOD | {"c/x.png": encoded(picture(99)), "d/": b"", "e/": b""}))
    assert (report.problems, report.labels) == ([], ["a", "b", "c"])
    assert report.report is not None
    questions = [(question.code, question.label, question.detail) for question in report.report.questions]
    assert questions == [("single_record", "c", {"records": 1}), ("empty_class", None, {"folders": 2})]


def test_one_class_alone_is_no_task(tmp_path: Path) -> None:
    report, _ = run(tmp_path, zipped({name: data for name, data in GOOD.items() if name.startswith("a/")}))
    assert found(report) == [(None, "too_few_labels")]


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    whole = zipped(GOOD)
    for content in (b"", b"PK", b"PK\x05\x06" + bytes(17), GOOD["a/1.png"], whole[: len(whole) // 2]):
        report, _ = run(tmp_path, content)
        assert found(report)[0] == (None, "not_zip")
    assert found(run(tmp_path, b"PK\x05\x06" + bytes(18))[0])[0] == (None, "empty_file")


def test_a_million_entries_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    one = b"PK\x01\x02" + bytes(24) + struct.pack("<3H", 7, 0, 0) + bytes(12) + b"a/1.png"
    many = one * 10**6
    wide = b"PK\x06\x06" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, 10**6, 10**6, len(many), 0)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, len(many), 1)
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 65535, 65535, 2**32 - 1, 0, 0)
    report, _ = run(tmp_path, many + wide + locator + end)
    assert found(report) == [(None, "too_large")]
    assert str(zip_directory.MOST_ENTRIES) in report.problems[0].message


def test_a_list_is_counted_by_what_it_holds_and_not_by_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(zipped(GOOD))
    data[-14:-10] = struct.pack("<2H", 1, 1)
    assert zip_directory.count(io.BytesIO(bytes(data))) == 6
    assert zip_directory.count(io.BytesIO(zipped(GOOD) + b"")) == 6
    with zipfile.ZipFile(target := io.BytesIO(), "w") as archive:
        archive.writestr("a", b"")
        archive.comment = b"words PK\x05\x06 and so on"
    assert zip_directory.count(target) == 1
    for bound in ("MOST_ENTRIES", "MOST_DIRECTORY"):
        with monkeypatch.context() as patch, pytest.raises(zip_directory.TooManyEntries):
            patch.setattr(zip_directory, bound, 5)
            zip_directory.count(io.BytesIO(bytes(data)))


def bomb(size: int) -> bytes:
    """An entry of so many zeros, behind the beginning of a picture."""
    return zipped(GOOD | {"a/bomb.png": GOOD["a/1.png"][:60] + bytes(size)}, zipfile.ZIP_DEFLATED)


def test_a_bomb_is_refused_by_what_it_says_and_by_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bomb(bounds.MOST_BYTES + 100)
    assert len(content) < 200_000
    assert found(run(tmp_path, content)[0]) == [(7, "picture_too_large")]
    source = io.BytesIO(content)
    monkeypatch.setattr(zips, "MOST_BYTES", 10_000)
    opened = zips.PictureZip(source, Problems(), None)
    lying = opened.pictures[6].info
    lying.file_size = 500  # as if the list said so
    with pytest.raises(Exception, match="unpacked"):
        opened.read(opened.pictures[6])


def test_entries_that_share_their_bytes_are_bounded_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_ENCODED", 3 * len(GOOD["a/1.png"]))
    monkeypatch.setattr(zips, "MOST_ENCODED", bounds.MOST_ENCODED)
    report, _ = run(tmp_path, zipped(GOOD))
    assert (None, "too_large") in found(report)


@pytest.mark.parametrize("bound", ["MOST_PICTURES", "MOST_ENCODED", "MOST_DECODED", "MOST_KEPT"])
def test_a_file_of_pictures_is_bounded_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    most = {"MOST_PICTURES": 3, "MOST_ENCODED": 20_000, "MOST_DECODED": 3 * 64 * 48, "MOST_KEPT": 25_000}[bound]
    monkeypatch.setattr(bounds, bound, most)
    report, _ = run(tmp_path, zipped(GOOD))
    assert [problem.code for problem in report.problems] == ["too_large"]
    assert str(most) in report.problems[0].message
    assert report.problems[0].line in (3, 4)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    content = bytearray(zipped(GOOD))
    content[100] ^= 1
    assert found(run(tmp_path, bytes(content))[0]) == [(1, "broken_entry")]


def test_the_same_picture_twice_is_one_record(tmp_path: Path) -> None:
    entries = {"b/x.png": encoded(picture(50)), "b/0.png": encoded(picture(0))}
    entries = {f"a/{i}.webp": encoded(picture(i), "WEBP", lossless=True) for i in range(4)} | entries
    both = zipped({f"a/{i}.png": encoded(picture(i)) for i in range(4)} | entries)
    report, rows = run(tmp_path, both)
    assert report.report is not None
    assert (report.units, report.report.read, report.report.repeated) == (5, 10, 5)
    assert report.report.conflicts.records == 3
    assert rows is not None
    assert rows.labels == [0, 0, 0, 0, 1]
