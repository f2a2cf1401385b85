"""The table of architectures names each case's end, and a fault that is no refusal fails the run."""

import json

import pytest

from benchmarks import architectures
from dpcore.methods import get_trainer


def test_a_case_that_ends_in_a_traceback_fails_the_run(monkeypatch, tmp_path, capsys):
    def attach(model, options, **more):
        raise KeyError("no such layer")

    file, case = tmp_path / "figures", ["--types", "bert", "--kinds", "classification"]
    assert architectures.main([*case, "--methods", "bitfit", "zo", "--json", str(file)]) == 0
    found = {line["figure"]: line["value"] for line in map(json.loads, file.read_text().splitlines())}
    assert found.pop("bert/classification/bitfit") < 1e-9
    assert found.pop("bert/classification/zo") < 1e-9
    assert found == {"works": 2, "inexact": 0, "refused": 0, "charged": 0, "raw": 0}
    monkeypatch.setattr(get_trainer("full"), "attach", attach)
    assert architectures.main([*case, "--methods", "full"]) == 1
    assert "bert/classification/full: raw: attach: KeyError: 'no such layer'" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "way"), [(ValueError, "charged"), (KeyError, "raw")])
def test_a_refusal_after_the_step_was_authorised_fails_the_run(monkeypatch, error, way):
    def run(*, authorise, **more):
        authorise(0, 1)
        raise error("too late")

    monkeypatch.setattr(architectures, "run", run)
    assert architectures.main(["--types", "bert", "--kinds", "classification", "--methods", "full"]) == 1
