import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from acclimate.errors import UsageError
from acclimate.selection.reverse_probe import REVERSE_PROBE, reverse_probe

CENTRES = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])


def clusters(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features around three centres, and their classes."""
    ys = torch.arange(count) % 3
    return CENTRES[ys] + torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)), ys


def says(labels: torch.Tensor, classes: int = 3) -> torch.Tensor:
    """Logits of a model that predicts these classes."""
    return 4.0 * torch.nn.functional.one_hot(labels, classes)


def test_right_labels_lead_back():
    (ft, yt), (fs, ys) = clusters(300, 0), clusters(90, 1)
    assert reverse_probe(says(yt), ft, fs, ys) > 0.97


def test_exchanged_labels_lead_to_the_wrong_class():
    (ft, yt), (fs, ys) = clusters(300, 0), clusters(90, 1)
    exchanged = torch.tensor([1, 0, 2])[yt]
    assert reverse_probe(says(exchanged), ft, fs, ys) == pytest.approx(1 / 3, abs=0.03)


def test_falls_with_the_share_of_wrong_labels():
    (ft, yt), (fs, ys) = clusters(600, 0), clusters(300, 1)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(2))
    found = []
    for share in (0.0, 0.5, 0.66, 1.0):
        wrong = yt.clone()
        some = order[: int(600 * share)]
        wrong[some] = torch.randint(0, 3, (len(some),), generator=torch.Generator().manual_seed(3))
        found.append(reverse_probe(says(wrong), ft, fs, ys))
    assert found[0] > found[3] + 0.3
    assert found[1] > found[3]


@pytest.mark.parametrize("class_", range(3))
def test_one_class_is_worth_chance(class_):
    (ft, _), (fs, ys) = clusters(60, 0), clusters(30, 1)
    assert reverse_probe(says(torch.full((60,), class_)), ft, fs, ys) == pytest.approx(1 / 3)
    assert reverse_probe(says(torch.full((60,), 3), 4), ft, fs, ys) == 0


def test_is_balanced_accuracy():
    """1 % of the source is the second class: ignoring it costs half."""
    ft = torch.linspace(-1, 1, 200)[:, None]
    fs, ys = torch.cat([torch.full((99, 1), -0.5), torch.full((1, 1), -0.6)]), torch.tensor([0] * 99 + [1])
    assert reverse_probe(says((ft[:, 0] > 0).long(), 2), ft, fs, ys) == pytest.approx(0.5)
    fs[99] = 0.6
    assert reverse_probe(says((ft[:, 0] > 0).long(), 2), ft, fs, ys) == pytest.approx(1)


def test_equals_a_least_squares_probe_where_classes_lie_apart():
    """An independent linear classifier: ridge regression on one-hot labels."""
    (ft, yt), (fs, ys) = clusters(300, 0), clusters(300, 1)
    x, x_s = (torch.cat([f, torch.ones(len(f), 1)], 1).numpy() for f in (ft, fs))
    weights = np.linalg.lstsq(x, np.eye(3)[yt.numpy()], rcond=None)[0]
    expected = balanced_accuracy_score(ys.numpy(), (x_s @ weights).argmax(1))
    assert reverse_probe(says(yt), ft, fs, ys) == pytest.approx(expected, abs=0.02)


def test_rows_that_are_ignored_do_not_count():
    (ft, yt), (fs, ys) = clusters(90, 0), clusters(60, 1)
    ys[::2] = -1
    assert reverse_probe(says(yt), ft, fs, ys) == reverse_probe(says(yt), ft, fs[1::2], ys[1::2])


def test_constant_features_are_worth_chance():
    assert reverse_probe(says(torch.arange(60) % 3), torch.ones(60, 2), torch.ones(30, 2), torch.arange(30) % 3) == (
        pytest.approx(1 / 3)
    )


def test_extreme_logits_change_nothing():
    (ft, yt), (fs, ys) = clusters(90, 0), clusters(60, 1)
    assert reverse_probe(1e37 * says(yt), ft, fs, ys) == reverse_probe(says(yt), ft, fs, ys)


def test_refuses_labels_that_are_all_ignored():
    ft, yt = clusters(30, 0)
    with pytest.raises(UsageError, match="every label"):
        reverse_probe(says(yt), ft, ft, torch.full((30,), -1))


def test_higher_is_better():
    assert REVERSE_PROBE.gain(0.9) > REVERSE_PROBE.gain(0.2)
    assert REVERSE_PROBE.takes == ("zt", "ft", "fs", "ys")
