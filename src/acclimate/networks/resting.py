"""BatchNorm of a pretrained body: trained, trained in its statistics only, or at rest."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from acclimate.errors import unknown
from acclimate.networks.statistics import batch_norms

BatchNormMode = Literal["trained", "frozen-affine", "frozen"]
"""What moves in BatchNorm while the network trains.

``trained``: all. ``frozen-affine``: scales and shifts get no gradient, but batches are normalised by their own statistics
and move the running ones (AdaptSegNet and its followers), so target batches adapt the network by themselves.
``frozen``: nothing; batches are normalised by the running statistics, in training mode too (CBST, CRST).
"""


class RestingBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that always normalises by its running statistics, and whose scales and shifts get no gradient.

    Still a BatchNorm layer to all that reads or re-estimates statistics; ``train()`` alone has no effect.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> RestingBatchNorm2d:
        """Stay in evaluation mode."""
        return super().train(False)


def statistics_move(module: nn.Module, norm: str) -> bool:
    """Whether training under the norm policy moves running statistics: if not, what was learnt under them shall keep them."""
    return norm != "frozen" and any(not isinstance(layer, RestingBatchNorm2d) for _, layer in batch_norms(module))


def set_batch_norm(module: nn.Module, mode: BatchNormMode) -> None:
    """Give all BatchNorm layers inside a new ``module`` (that has no learnt weights yet) the meaning ``mode``.

    Names of layers and of their tensors stay. Raises :class:`UsageError` for another mode.
    """
    if mode not in get_args(BatchNormMode):
        raise unknown("batch_norm", mode, get_args(BatchNormMode))
    for parent in list(module.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, _BatchNorm) and mode == "frozen-affine":
                layer.requires_grad_(False)
            elif isinstance(layer, nn.BatchNorm2d) and mode == "frozen":
                setattr(parent, name, RestingBatchNorm2d(layer.num_features))
