"""`tacit privacy-audit`: its table, its file, its exit codes; and that it goes on where it was interrupted."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cli.main import app
from dpcore.audit import finding, golden, installation
from dpcore.audit.finding import AuditFinding
from dpcore.audit.subject import Subject


def ask(*words):
    return CliRunner().invoke(app, ["privacy-audit", *words])


def made(audit="canaries", subject="lora/classification/record", fitted=1.0, **more):
    values = {"asked": 4.0, "claim": 3.6, "direct": 0.4, "gaussian": 0.6, "canaries": 16, "accuracy": 0.6}
    values |= {"delta": 1e-5, "confidence": 0.99, "seconds": 0.1} | more
    return AuditFinding(audit=audit, subject=subject, fitted=fitted, **values)


@pytest.fixture
def quick(monkeypatch):
    """Audits that take no time; what was asked for. fitted: what they find."""
    asked, fitted = [], {}

    def find(audit, subject, folder, count, confidence):
        name = f"{audit}/{subject.name}"
        asked.append(name)
        if isinstance(what := fitted.get(name, 1.0), BaseException):
            raise what
        return made(audit, subject.name, what, asked=subject.epsilon, confidence=confidence, canaries=count)

    monkeypatch.setattr(finding, "find", find)
    return asked, fitted


def test_a_small_audit_runs_and_says_what_it_means(tmp_path):
    file = tmp_path / "audit.jsonl"
    ran = ask("--canaries", "16", "--json", str(file))
    assert ran.exit_code == 0, ran.output
    assert "canaries/lora/classification/record" in ran.stdout
    assert "That is no proof" in ran.stdout
    (line,) = [json.loads(text) for text in file.read_text().splitlines()]
    assert line["claim"] > max(line["direct"], line["gaussian"], line["fitted"])
    assert line["claim"] == pytest.approx(3.63, abs=0.02)


def test_what_a_file_holds_is_not_measured_again(quick, tmp_path):
    asked, _ = quick
    file = str(tmp_path / "audit.jsonl")
    assert ask("--json", file).exit_code == 0
    assert ask("--json", file).exit_code == 0
    assert len(asked) == 1
    assert ask("--json", file, "--canaries", "50").exit_code == 0  # another audit
    assert len(asked) == 2


def test_an_interrupted_audit_goes_on(quick, tmp_path, monkeypatch):
    asked, fitted = quick
    plans = [installation.planned(Subject(method=name), "canaries") for name in ("bitfit", "full", "lora")]
    monkeypatch.setattr(installation, "everything", lambda epsilon: iter(plans))
    fitted["canaries/full/classification/record"] = KeyboardInterrupt()
    words = ["--installation", "--json", str(tmp_path / "audit.jsonl")]
    ran = ask(*words)
    assert ran.exit_code == 130
    assert "1 of 3" in ran.stderr
    fitted.clear()
    ran = ask(*words)
    assert ran.exit_code == 0, ran.output
    assert [name.split("/")[1] for name in asked] == ["bitfit", "full", "full", "lora"]


def test_a_bound_above_its_claim_is_exit_code_one(quick):
    _, fitted = quick
    fitted["canaries/lora/classification/record"] = 3.7
    ran = ask()
    assert ran.exit_code == 1
    assert "a fault" in ran.stdout


def test_what_does_not_go_together_is_left_out_with_its_reason_or_refused(quick, monkeypatch):
    _, fitted = quick
    plans = [installation.planned(Subject(method=name), "canaries") for name in ("federated-lm", "lora")]
    monkeypatch.setattr(installation, "everything", lambda epsilon: iter(plans))
    fitted["canaries/federated-lm/classification/record"] = ValueError("it writes")
    ran = ask("--installation")
    assert ran.exit_code == 0
    assert "left out: canaries/federated-lm/classification/record: it writes" in ran.stderr
    ran = ask("--method", "federated-lm")
    assert ran.exit_code == 1
    assert "it writes" in ran.stderr


@pytest.mark.parametrize("words", [("--method", "none"), ("--how", "by magic"), ("--unit", "row"), ("--task", "poem")])
def test_an_unknown_word_names_those_that_there_are(words):
    ran = ask(*words)
    assert ran.exit_code == 1
    assert "there are" in ran.stderr


def test_options_that_would_mean_nothing_are_refused():
    for words in (("--installation", "--conformance"), ("--installation", "--method", "full")):
        ran = ask(*words)
        assert ran.exit_code == 1
        assert "--installation" in ran.stderr


def test_a_file_of_something_else_is_refused(tmp_path):
    file = tmp_path / "notes"
    file.write_text("hello\n")
    ran = ask("--json", str(file))
    assert ran.exit_code == 1
    assert "no finding of an audit" in ran.stderr
    assert file.read_text() == "hello\n"


def test_conformance_names_what_does_not_hold(quick, monkeypatch):
    values = [one for one in golden.values() if "closed form: order" in one.source]
    monkeypatch.setattr(golden, "values", lambda: iter(values))
    ran = ask("--conformance")
    assert ran.exit_code == 0, ran.output
    assert "closed form" in ran.stdout
    wrong = [golden.Golden("Renyi", "one", "nobody", 2.0, 3.0, lambda: 1.0), *values]
    monkeypatch.setattr(golden, "values", lambda: iter(wrong))
    ran = ask("--conformance")
    assert ran.exit_code == 1
    assert f"1 of {len(wrong)} golden values do not hold" in ran.stdout


def test_an_installations_audits_are_of_every_method_task_and_unit():
    names = [plan.name for plan in installation.everything(4.0)]
    assert len(names) == len(set(names)) > 90
    for one in ("canaries/lora/chat/user", "canaries/zo/pair/record", "steps/lora/classification/record"):
        assert one in names
    assert {name.split("/")[0] for name in names} == set(finding.AUDITS)


def test_help_loads_no_torch():
    code = "import sys; from cli.main import app; app(['privacy-audit', '--help'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 0
