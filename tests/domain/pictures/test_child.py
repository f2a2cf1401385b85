"""Pictures in the check's own process, at its bounds: what is too much ends there, and nothing stays behind."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from domain.ingest import run as running
from domain.ingest.check import CheckRequest
from domain.ingest.pictures.bounds import MOST_PIXELS
from domain.ingest.run import run_check
from tests.domain.marks import marks_in
from tests.domain.pictures.checking import COLUMNS, KEY
from tests.made_pictures import archive, encoded, picture, zipped


def asked(folder: Path, content: bytes) -> CheckRequest:
    source = folder / "sent.part"
    source.write_bytes(content)
    return CheckRequest(
        source=source, target=folder / "rows", format="zip", task="image", columns=COLUMNS,
        declared_size=None, key=KEY, marks=marks_in(folder),
    )  # fmt: skip


def slow() -> bytes:
    """Pictures that take half a minute together."""
    noise = encoded(Image.effect_noise((4000, 3000), 90), "JPEG")
    return zipped({f"{'ab'[i % 2]}/{i}.jpg": noise for i in range(80)})


@pytest.mark.verify
def test_the_largest_picture_fits_into_the_process(tmp_path: Path) -> None:
    """Every kind of the largest picture, whose pixels are unfolded more than once."""
    side = int(MOST_PIXELS**0.5)
    image = Image.effect_mandelbrot((side // 8, side // 8), (-2, -1.5, 1, 1.5), 50).resize((side, side))
    clear = image.convert("LA")
    exif = Image.Exif()
    exif[0x0112] = 6
    largest = {
        "a/1.png": encoded(clear, compress_level=1, exif=exif.tobytes()),
        "a/2.jpg": encoded(image.convert("CMYK"), "JPEG", exif=exif.tobytes()),
        "b/3.webp": encoded(Image.new("RGBA", (16000, 4000), (1, 2, 3, 4)), "WEBP", lossless=True, quality=0, method=0),
        "b/4.png": encoded(picture(1)),
    }
    report = run_check(asked(tmp_path, zipped(largest)))
    assert (report.problems, report.units) == ([], 4)


def test_what_takes_too_long_ends_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SECONDS", 3)
    report = run_check(asked(tmp_path, slow()))
    assert [problem.code for problem in report.problems] == ["check_took_too_long"]
    assert left(tmp_path) <= {"sent.part", "rows"}


def test_a_check_that_is_killed_leaves_no_file_but_those_that_are_swept(tmp_path: Path) -> None:
    request = asked(tmp_path, slow())
    child = subprocess.Popen([sys.executable, "-P", "-m", "domain.ingest"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(request.model_dump_json().encode())
    child.stdin.close()
    while not (tmp_path / "rows").exists():
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert left(tmp_path) == {"sent.part", "rows"}  # which `domain.files.scratch` removes, by their names


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_process_that_runs_out_of_memory_is_a_problem_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a picture that needs more than the process may have."""
    code = (
        "import resource, domain.ingest.__main__ as child, domain.ingest.pictures.bounds as bounds;"
        "child.MEMORY = 3 * 2**28; import sys; sys.exit(child.main())"
    )
    real = subprocess.run

    def small(command: list[str], **options: object) -> object:
        return real([sys.executable, "-P", "-c", code], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(running.subprocess, "run", small)
    big = zipped({"a/1.png": encoded(Image.new("RGB", (8000, 8000), "red")), "b/2.png": encoded(picture(1))})
    report = run_check(asked(tmp_path, big))
    assert [problem.code for problem in report.problems] == ["check_failed"]
    assert run_check(asked(tmp_path, archive())).problem_count in (0, 1)
