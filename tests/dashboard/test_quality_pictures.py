"""What pictures of quality say, without a browser."""

import math

from api.dashboard.pictures import fields, ladder
from api.jobs.privacy import JobPrivacy
from api.jobs.quality import Quality
from api.jobs.schemas import Job


def quality(metric: str, value: float, file: str = "file-a", **more: float | None) -> Quality:
    usual = {"evaluated": 100, "standard_error": None, "untrained": None, "baseline": None, "per_class": None}
    return Quality.model_validate({"metric": metric, "value": value, "file": file} | usual | more)


def made(id: str, found: Quality | None, share: float | None, main: bool = True) -> Job:
    privacy = JobPrivacy.model_construct(share=share, share_used=None, main_order=main)
    return Job.model_construct(id=id, quality=found, privacy=privacy)


def test_metrics_and_files_never_share_a_picture() -> None:
    jobs = [
        made("good", quality("accuracy", 0.9, standard_error=0.02, untrained=0.5, baseline=0.6), 0.2),
        made("better", quality("accuracy", 0.95, standard_error=0.01, untrained=0.5, baseline=0.6), 0.1, main=False),
        made("elsewhere", quality("accuracy", 0.7, "file-b"), 0.05),
        made("writer", quality("perplexity", 12.5, standard_error=1.0, untrained=80.0, baseline=80.0), 0.3),
        made("unknown share", quality("perplexity", 11.0), None),
        made("no figures", None, 0.1),
    ]
    found = fields(jobs)
    names = [(one.metric, one.file, [job.id for _, job in one.jobs]) for one in found]
    assert names == [
        ("accuracy", "file-a", ["better", "good"]),  # the best first
        ("accuracy", "file-b", ["elsewhere"]),
        ("perplexity", "file-a", ["unknown share", "writer"]),
    ]
    better, good = found[0].dots
    assert (better.outside, good.outside) == (True, False)
    assert better.x < good.x
    assert better.y.at > good.y.at
    assert good.y.ends is not None
    assert good.y.ends[0] < good.y.at < good.y.ends[1]
    assert [(line.name, line.value) for line in found[0].lines] == [("untrained", 0.5), ("most frequent label", 0.6)]
    assert [dot.job.id for dot in found[2].dots] == ["writer"]  # in the table alone: whose share is not known


def test_a_perplexity_lies_on_a_logarithmic_scale_and_an_accuracy_between_0_and_1() -> None:
    rungs = ladder(quality("perplexity", 10.0, untrained=1000.0))
    assert rungs is not None
    at = {mark.name: mark.at for mark in rungs.marks} | dict(rungs.ticks)
    assert math.isclose(at["100"] - at["This job"], at["Untrained"] - at["100"], abs_tol=0.1)
    low, high = ladder(quality("accuracy", 0.0)), ladder(quality("accuracy", 1.0, standard_error=0.3))
    assert low is not None
    assert high is not None
    assert low.ticks == high.ticks
    assert (low.marks[0].at, high.marks[0].at) == (low.ticks[0][1], low.ticks[-1][1])
    assert high.marks[0].ends is not None
    assert high.marks[0].ends[1] == high.marks[0].at  # cut off at the end
    assert ladder(None) is None
