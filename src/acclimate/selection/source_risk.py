"""The loss on held-out source images: what is looked at where nobody thinks of the target."""

from __future__ import annotations

from torch import Tensor

from acclimate.selection.base import Score
from acclimate.selection.density_ratio import losses_of


def source_risk(zs: Tensor, ys: Tensor) -> float:
    """R_s = 1/M sum_i -log softmax(z_i)_{y_i}, in nats, from 0 on; lower is better.

    Args:
        zs: ``(M, K)`` logits of source rows that training has not seen. ys: ``(M,)`` their labels; -1 does not count.

    The first term of the bound of Ben-David et al. (Machine Learning 2010, theorem 2), with a loss in place of the
    error; the two others are how far the domains are apart, and how well one network can do on both. Raises
    :class:`UsageError` if no label counts.
    """
    return losses_of(zs, ys).mean().item()


SOURCE_RISK = Score(
    name="source-risk",
    title="Source risk",
    function=source_risk,
    better="low",
    paper="Ben-David et al., A Theory of Learning from Different Domains, Machine Learning 2010 (the first term of "
    "theorem 2)",
    when="The two domains hardly differ, or only to find models that have not learnt the task at all. It is the "
    "control that every other score has to beat.",
    fails="It knows nothing of the target: source-only usually has the lowest loss, and a method that pays for the "
    "target with a little of the source is punished for it.",
)
