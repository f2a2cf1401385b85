"""What do audits find of this project's own training, and of training that was broken on purpose?

{audit}/{method}/{task}/{unit}/{clipping}/claim     epsilon of the audited run by its own numbers, at delta 1e-5
.../direct, .../gaussian, .../fitted    bounds on epsilon from below, which hold together with the confidence that the
                        detail names; with canaries and seconds (`docs/audits.md`)
broken/{way}/{audit}/{...}/found     1 where a bound lies above the claim, and so finds the fault; the detail has the
                        bounds, with the same canaries as the honest run
broken/.../honest       1 where the same audit of honest training lies above its claim too: it must be 0. Where that run
                        is among the honest ones above, it is not made again

For `steps`: five single steps in each world for a canary. Figures that a file of --json holds are not measured again.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import get_args

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from transformers.utils import logging

from benchmarks.common import Figure, held, parser, report, save
from dpcore.audit import installation, little, single_steps, two_worlds
from dpcore.audit.finding import Audit, AuditFinding, find
from dpcore.audit.subject import Subject
from dpcore.terms.methods import get_method, method_names
from tests.dpcore.audit.broken import BROKEN
from tests.dpcore.audit.models import loud_head

NAME = "audit"
CONFIDENCE = 0.99
CLIPPINGS = ("automatic", "flat", "per-layer", "adaptive")
OF_USERS = ("federated-lm",)
OF_NUMBERS = ("automatic", "flat")
"""How a few numbers are clipped."""
QUICK = 48
STEPS = 5
OF_STEPS = ("draws of fixed size", "divided by the size of the draw")


def honest() -> Iterator[tuple[Audit, Subject]]:
    """Every method, each way of clipping where gradients are clipped, users, and the other audits."""
    for clipping in CLIPPINGS:
        yield "canaries", Subject(clipping=clipping)  # type: ignore[arg-type]
        yield "canaries", Subject(method="full", clipping=clipping)  # type: ignore[arg-type]
    others = sorted({*method_names()} - {"lora", "full"})
    subjects = [Subject(method=m, task="text", unit="user") if m in OF_USERS else Subject(method=m) for m in others]
    yield from (("canaries", subject) for subject in subjects)
    yield "canaries", Subject(unit="user")
    yield "canaries", Subject(task="text")
    for audit in ("round", "membership", "differences"):
        planned = installation.planned(Subject(), audit)  # type: ignore[arg-type]
        yield planned.audit, planned.subject
    for subject in subjects:
        field = get_method(subject.method).Request.model_fields["clipping"]
        for clipping in sorted({*get_args(field.annotation)} - {field.default}):
            if subject.method != "zo" or clipping in OF_NUMBERS:
                yield "canaries", replace(subject, clipping=clipping)


def faults() -> Iterator[tuple[str, Audit, Subject, str]]:
    """A fault, the audit that is made for it, and the little model to see it on."""
    for clipping in CLIPPINGS:
        yield "no clipping", "canaries", Subject(clipping=clipping), ""  # type: ignore[arg-type]
    yield "half the noise", "canaries", Subject(task="text"), ""
    yield "half the noise", "canaries", Subject(epsilon=8.0), ""
    yield "half the noise", "canaries", Subject(method="zo"), ""
    yield "a tied weight counted once", "canaries", Subject(method="full", task="text"), "loud head"
    yield "users clipped record by record", "canaries", Subject(unit="user"), ""
    yield "noise drawn twice", "differences", installation.planned(Subject(), "differences").subject, ""
    of_a_job = installation.planned(Subject(epsilon=0.5), "membership").subject
    yield "no noise and no clipping", "membership", of_a_job, ""


def measured(audit: Audit, subject: Subject, folder: Path, canaries: int, how: str = "") -> AuditFinding:
    """One audit on its little model."""
    place = folder / f"{subject.task}{how.replace(' ', '-')}"
    if not place.is_dir():
        _ = loud_head(place) if how else little.write(place, subject.task)
    return find(audit, subject, place, canaries, CONFIDENCE)


def figures(found: AuditFinding) -> list[Figure]:
    """Of an honest run."""
    name, detail = f"{found.audit}/{found.subject}", described(found)
    bounds = {"claim": found.claim, "direct": found.direct, "gaussian": found.gaussian, "fitted": found.fitted}
    return [Figure(NAME, f"{name}/{what}", v, "eps", None, detail) for what, v in bounds.items() if v is not None]


def described(found: AuditFinding) -> dict[str, object]:
    """What a figure of a finding says beside its value."""
    return {"canaries": found.canaries, "confidence": found.confidence, "seconds": found.seconds}


def faulty(way: str, audit: Audit, subject: Subject) -> str:
    """Of a broken run's figures."""
    priced = "" if subject.epsilon == Subject.epsilon else f"/eps{subject.epsilon:g}"
    return f"broken/{way}/{audit}/{subject.name}{priced}"


def fault(way: str, audit: Audit, subject: Subject, folder: Path, canaries: int, how: str) -> list[Figure]:
    """The broken run and the honest one, by the same audit."""
    made = []
    same = [] if (audit, subject) in list(honest()) and not how else [("honest", nullcontext())]
    for label, broken in [("found", BROKEN[way]()), *same]:
        with broken:
            found = measured(audit, subject, folder, canaries, how)
        detail = described(found) | {
            "claim": round(found.claim, 3),
            "direct": round(found.direct, 3),
            "fitted": None if found.fitted is None else round(found.fitted, 3),
        }
        figure = f"{faulty(way, audit, subject)}/{label}"
        made.append(Figure(NAME, figure, float(found.above), "", None, detail))
    return made


def single_figure(way: str | None, batch: int) -> str:
    """Of single steps, broken in some way or honest."""
    return f"broken/steps/batch{batch}/honest" if way is None else f"broken/{way}/steps/batch{batch}/found"


def single(way: str | None, batch: int, folder: Path, steps: int) -> Figure:
    """Single steps at an expected batch of one or two."""
    place = folder / "tiny"
    if not place.is_dir():
        little.write(place, "classification", wide=16, layers=1)
    began = time.monotonic()
    with nullcontext() if way is None else BROKEN[way]():
        worlds = single_steps.outputs(Subject(method="bitfit"), place, steps, batch=batch)
    bound = two_worlds.bound(worlds.without, worlds.within, single_steps.DELTA, 1 - CONFIDENCE)
    detail: dict[str, object] = {"steps": steps, "confidence": CONFIDENCE}
    detail |= {"seconds": round(time.monotonic() - began, 1), "claim": round(worlds.claim, 3)}
    detail["direct"] = round(bound, 3)
    return Figure(NAME, single_figure(way, batch), float(bound > worlds.claim), "", None, detail)


def options() -> argparse.ArgumentParser:
    """Of this benchmark."""
    made = parser(__doc__)
    made.add_argument("--canaries", type=int, default=240, help="of each audit (240)")
    made.add_argument("--only", nargs="+", choices=("honest", "broken"), default=["honest", "broken"])
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the figures."""
    given = options().parse_args(arguments)
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    known = {figure.figure: figure for figure in held(given.json)}
    canaries = QUICK if given.quick else given.canaries

    def keep(found: list[Figure]) -> None:
        known.update({figure.figure: figure for figure in found})
        sys.stderr.write("".join(f"{figure.figure} {figure.value:.3f}\n" for figure in found))
        save(list(known.values()), given.json)

    cases = list(honest())[:1] if given.quick else list(honest())
    broken = list(faults())[:1] if given.quick else list(faults())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "honest" in given.only:
            for audit, subject in cases:
                if f"{audit}/{subject.name}/claim" not in known:
                    keep(figures(measured(audit, subject, folder, canaries)))
        if "broken" in given.only:
            for way, audit, subject, how in broken:
                if f"{faulty(way, audit, subject)}/found" not in known:
                    keep(fault(way, audit, subject, folder, canaries, how))
            for way in () if given.quick else (*OF_STEPS, None):
                for batch in (1, 2):
                    if single_figure(way, batch) not in known:
                        keep([single(way, batch, folder, STEPS * canaries)])
    report(list(known.values()), given.json)


if __name__ == "__main__":
    main()
