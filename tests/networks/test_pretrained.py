"""What a file of weights may lack, add or change."""

from __future__ import annotations

import pytest
import torch

from acclimate.errors import DataError
from acclimate.networks.pretrained import check_weights

OWN = {"a": torch.ones(2), "b": torch.ones(3), "bn.num_batches_tracked": torch.ones(())}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"a": torch.ones(2)}, r"w\.pth: these are not the weights of N: it lacks b; do this"),
        ({}, r"it lacks a and 1 more; do this"),
        ({"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}, "it also has c;"),
        ({"a": torch.ones(2), "b": torch.ones(4)}, "it has another shape of b;"),
    ],
)
def test_weights_that_do_not_fit_are_refused(found, message):
    with pytest.raises(DataError, match=message):
        check_weights("w.pth", found, OWN, "N", "do this")


def test_counters_may_be_absent():
    check_weights("w.pth", {"a": torch.zeros(2), "b": torch.zeros(3)}, OWN, "N", "do this")
