"""Help is quick, complete and true; mistakes are named with the nearest right word."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from acclimate.cli.app import EXAMPLES, SECTIONS, app

VERBS = [verb for verbs in SECTIONS.values() for verb in verbs]
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTED = [
    line.strip()
    for page in PAGES
    for block in page.read_text(encoding="utf-8").split("```")[1::2]
    for line in block.splitlines()
    if line.strip().startswith("acclimate ")
]
COMMANDS = [example for examples in EXAMPLES.values() for example in examples]
HEAVY = ("torch", "kornia", "matplotlib", "sklearn", "numpy", "onnx")


@pytest.mark.parametrize("words", [["--help"], ["adapt", "--help"], ["--version"], ["demo", "--list"]], ids=" ".join)
def test_help_is_quick_and_loads_nothing_heavy(words):
    code = (
        "import json, sys, time\nfrom acclimate.cli import main\n"
        f"main({words})\n"
        "print(json.dumps([time.process_time(), sorted(sys.modules)]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stderr.splitlines()[-1])
    assert not set(HEAVY) & set(modules)
    assert seconds < 0.5  # of computing: a busy machine does not make the test fail


def test_root_help_shows_every_verb(call):
    answer = call("--help")
    assert answer.code == 0
    assert all(f"\n  {verb} " in answer.out for verb in VERBS)
    assert call().out == answer.out
    assert max(map(len, answer.out.splitlines())) <= 110


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_an_example(call, verb):
    answer = call(verb, "--help")
    assert answer.code == 0
    assert "Examples:" in answer.out
    assert f"acclimate {verb}" in answer.out
    assert "--json" in answer.out


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_parse(command):
    name, verb, *words = shlex.split(command.partition(" > ")[0])
    assert name == "acclimate"
    typer.main.get_command(app).commands[verb].make_context(verb, words)


@pytest.mark.parametrize("command", DOCUMENTED)
def test_documented_commands_parse(command):
    _, verb, *words = shlex.split(command, comments=True)
    typer.main.get_command(app).commands[verb].make_context(verb, words)


def test_module_runs():
    done = subprocess.run([sys.executable, "-m", "acclimate", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("acclimate ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("adpt", "did you mean 'adapt'?"),
        ("adapt --targt x", "did you mean '--target'?"),
        ("adapt --source x", "missing option '--target'"),
        ("adapt --source x --target y --lr fast", "invalid value for '--lr'"),
        ("adapt --source digits-rendred --target digits-blended", "did you mean 'digits-rendered'?"),
        ("adapt --source x --model y --target z", "either --source"),
        ("adapt --target z", "either --source"),
        ("methods dannn", "did you mean 'dann'?"),
        ("networks unett", "did you mean 'unet'?"),
        ("datasets mnits", "did you mean 'mnist'?"),
        ("download mnits", "did you mean 'mnist'?"),
        ("download digits-blended", "comes with acclimate"),
        ("demo digist", "did you mean 'digits'?"),
        ("cite dannn", "did you mean 'dann'?"),
        ("check digits-rendred", "did you mean 'digits-rendered'?"),
    ],
)
def test_mistakes_name_the_nearest(call, words, said):
    answer = call(*words.split())
    assert answer.code == 2
    assert said in answer.err
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err


def test_errors_are_json_too(call):
    answer = call("adapt", "--targt", "x", "--json")
    assert answer.json == {"error": "there is no option --targt; did you mean '--target'?", "exit_code": 2}


@pytest.mark.parametrize("debug", [False, True])
def test_an_unexpected_error_is_short_unless_debugging(call, monkeypatch, tmp_path, debug):
    def broken(kind):
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("acclimate.registry.names", broken)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    answer = call("methods", *(["--debug"] if debug else []))
    assert answer.code == 1
    assert "error: ZeroDivisionError: surprise" in answer.err
    kept = list(tmp_path.glob("acclimate-error-*.txt"))
    assert ("Traceback" in answer.err) == debug
    assert len(kept) == (0 if debug else 1)
    assert all("ZeroDivisionError: surprise" in file.read_text() for file in kept)
