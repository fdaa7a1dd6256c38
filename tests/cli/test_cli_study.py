"""``study`` as a person uses it."""

from __future__ import annotations

import pytest

from acclimate.files import read_json
from acclimate.studies import bn
from acclimate.studies.bn import BNStudy, Irregular

DARK, BRIGHT = (0.3, 0.1), (0.9, 0.5)
TINY = BNStudy(
    sources=(DARK, BRIGHT),
    targets=(DARK,),
    dark_bright=(DARK, BRIGHT),
    regular=DARK,
    moved=BRIGHT,
    side=16,
    width=2,
    depth=1,
    images=8,
    target_images=8,
    steps=2,
    batch=4,
    distances=("frechet-diagonal",),
    null_repeats=2,
    irregular_seeds=1,
    irregular={"regular": Irregular()},
)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(bn, "SIZES", {"small": TINY, "paper": TINY.replace(steps=3)})


def test_the_study_writes_a_page_and_says_what_it_found(tiny, call, tmp_path):
    words = ("study", "bn", "--out", tmp_path, "--device", "cpu")
    answer = call(*words)
    assert answer.code == 0, answer.err
    assert "BatchNorm adaptation changes the mean IoU" in answer.out
    assert f"report   {tmp_path / 'report.html'}" in answer.out
    assert "next: acclimate adapt" in answer.err
    assert len(answer.out.splitlines()) + len(answer.err.splitlines()) < 30
    assert f"acclimate study bn --out {tmp_path}" in (tmp_path / "report.html").read_text()
    again = call(*words, "--json")
    assert again.json["report"] == str(tmp_path / "report.html")
    other = call(*words, "--size", "paper")
    assert other.code == 2
    assert "other settings (steps)" in other.err
    assert call(*words, "--size", "paper", "--force").code == 0
    settings = {read_json(path)["settings"] for path in tmp_path.glob("seed-*/**/*.json") if path.name != "model.json"}
    assert settings == {bn.SIZES["paper"].identity()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("study bnn", "did you mean 'bn'?"),
        ("study bn --size smal", "did you mean 'small'?"),
        ("study bn --seeds 0", "'--seeds'"),
        ("study bn --device gpu", "unknown device 'gpu'"),
    ],
)
def test_mistakes(call, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    answer = call(*words.split())
    assert answer.code == 2
    assert said in answer.err
    assert not list(tmp_path.iterdir())
