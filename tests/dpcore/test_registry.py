"""A half-made method is refused by name, with all that is wrong; a call that the Protocol does not have is a type error."""

import re
from pathlib import Path

import pytest

from dpcore.methods import get_trainer
from dpcore.terms.method import HalfMade
from dpcore.terms.methods import get_method, method_names

TERMS = "from dpcore.terms.methods.full import Options, Request, check, memory, phases, resolve, trainable"
TORCH = "from dpcore.methods.full import attach, begin, between, export, learns, load"


@pytest.mark.parametrize("name", method_names())
def test_every_method_keeps_both_protocols(name):
    get_method(name)
    get_trainer(name)


@pytest.mark.parametrize(
    ("terms", "torch", "words"),
    [
        (TERMS.replace("memory, ", ""), TORCH, ["memory is missing"]),
        (f"{TERMS}\ndel phases, trainable", TORCH, ["phases is missing", "trainable is missing"]),
        (
            f"{TERMS}\ndef resolve(request, *, task, declared_size, epsilon, facts): ...",
            TORCH,
            ["resolve cannot be called as request, options, task, declared_size, epsilon, facts: "],
        ),
        (f"{TERMS}\ndef check(options, facts, task, more): ...", TORCH, ["check cannot be called as", "'more'"]),
        (f"{TERMS}\nmemory = 3", TORCH, ["memory must be a function"]),
        (f"{TERMS}\nclass Options: ...", TORCH, ["Options must be a StrictModel"]),
        (f"{TERMS}\nRequest = Options", TORCH, ["Request must be a Request"]),
        (f"{TERMS}\nOptions = Options()", TORCH, ["Options must be a StrictModel"]),
        (f'{TERMS}\nresolv = resolve\n__all__ = ["Options", "resolv"]', TORCH, ["resolv is no part of a Method"]),
        (TERMS, TORCH.replace("between, ", ""), ["between is missing"]),
        (TERMS, f"{TORCH}\ndef attach(model, options, *, task): ...", ["attach cannot be called as", "'seed'"]),
        (TERMS, f"{TORCH}\nbetwen = between\n__all__ = ['betwen']", ["betwen is no part of a Trainer"]),
    ],
)
def test_a_half_made_method_is_refused(plant, terms, torch, words):
    place = "dpcore.terms.methods.half" if terms != TERMS else "dpcore.methods.half"
    with pytest.raises(HalfMade, match=f"^{re.escape(place)} is half-made: ") as caught:
        plant("half", terms, torch)
    for some in words:
        assert some in str(caught.value)
    assert str(caught.value).count(";") == len([w for w in words if "missing" in w][1:])


def test_what_a_method_has_for_itself_is_its_own(plant):
    """A name that does not stand in __all__ is no hook, and more parameters with defaults are none that break a call."""
    plant("more", f"{TERMS}\nHELP = 1\ndef check(options, facts, task, more=None): ...", f"{TORCH}\ndef own(): ...")
    assert get_method("more").Options() == get_method("full").Options()


WRONG = """
from dpcore.terms.methods import get_method

options = get_method("lora").Options()
get_method("lora").resolv(options)
get_method("lora").phases(options, None, declared_sise=3)
get_method("lora").check(options)
"""
WRONG_WITH_TORCH = """
from dpcore.methods import get_trainer

get_trainer("lora").betwen
get_trainer("lora").between()
"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            WRONG,
            [
                '5: error: "Method" has no attribute "resolv"',
                '6: error: Unexpected keyword argument "declared_sise" for "phases" of "Method"',
                '7: error: Missing positional arguments "facts", "task" in call to "check" of "Method"',
            ],
        ),
        pytest.param(
            WRONG_WITH_TORCH,
            [
                '4: error: "Trainer" has no attribute "betwen"',
                '5: error: Missing positional argument "iterate" in call to "between" of "Trainer"',
            ],
            marks=pytest.mark.verify,  # torch is read once
        ),
    ],
    ids=["terms", "torch"],
)
def test_a_misspelt_call_of_a_method_is_a_type_error(tmp_path, code, expected):
    """By the project's own settings; at run time nothing finds a call that no test makes."""
    api, root = pytest.importorskip("mypy.api"), Path(__file__).parents[2]
    (tmp_path / "wrong.py").write_text(code)
    settings = ["--config-file", str(root / "pyproject.toml"), "--cache-dir", str(root / ".mypy_cache")]
    out, problems, status = api.run([*settings, "--no-error-summary", str(tmp_path / "wrong.py")])
    assert (status, problems) == (1, "")
    # The folder is an earlier run's where the cache knows the answer.
    lines = [line.partition("wrong.py:")[2] for line in out.splitlines() if ": error: " in line]
    assert len(lines) == len(expected), out
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), out
