"""Agreement of predicted classes with clusters of the features."""

from __future__ import annotations

import warnings

import numpy as np
from torch import Tensor

from acclimate.selection.base import Score

STARTS = 4


def class_ami(zt: Tensor, ft: Tensor) -> float:
    """AMI(argmax_k zt_ik, cluster_i), clusters from k-means with K centres on the features.

    AMI(u, v) = (I(u, v) - E) / ((H(u) + H(v)) / 2 - E), with E the mutual information expected of partitions with the
    same sizes at random.

    Args:
        zt: ``(N, K)`` logits of the target.
        ft: ``(N, D)`` features of the target, clustered as they are: neither centred, scaled, normalised nor projected.

    Returns a value of at most 1, around 0 (and possibly a little below) where classes and clusters have nothing in
    common, high is better; 0 where there is one predicted class or one cluster. ClassAMI of Musgrave et al., 2022
    (arXiv 2208.07360); their code clusters features as they are or divided by their L2 norm, and finds K centres from
    random starts, as here. Equal rows are clustered as one row of their weight, in sorted order, so the order of rows
    does not matter; where there are fewer than K different rows, each is a cluster.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_mutual_info_score

    labels = zt.argmax(1).numpy()
    rows, place, counts = np.unique(ft.double().numpy(), axis=0, return_inverse=True, return_counts=True)
    k_means = KMeans(min(zt.shape[1], len(rows)), n_init=STARTS, random_state=0)
    with warnings.catch_warnings():
        # Rows that differ by rounding only may share a cluster, which scikit-learn warns of.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = k_means.fit_predict(rows, sample_weight=counts)
    if len(np.unique(clusters)) < 2:
        return 0.0  # scikit-learn says 1 where both are a single group
    return float(adjusted_mutual_info_score(labels, clusters[place.reshape(-1)]))


CLASS_AMI = Score(
    name="class-ami",
    title="Classes and clusters (ClassAMI)",
    function=class_ami,
    better="high",
    paper="Musgrave et al., Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain "
    "Adaptation, arXiv 2208.07360, 2022",
    when="Classes form groups in the features, each of about one cluster; it looks at features too, so a model that is "
    "merely sure of itself gains nothing.",
    fails="Clusters that follow something else (brightness, position in a segmented image, a frequent class split in "
    "two) lower it for good models, and a model whose features collapse onto its wrong predictions gets a high value.",
)
