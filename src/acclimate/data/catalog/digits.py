"""What the digit sets share: the names of the classes, and the ``.mat`` files of SVHN's kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acclimate.errors import DataError

DIGITS = tuple("0123456789")


def read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(N, 32, 32, 3)`` ``uint8`` and labels ``(N,)`` 0..9 of a MATLAB file with ``X`` and ``y``.

    Raises :class:`DataError` for a damaged file.
    """
    from scipy.io import loadmat  # a second that only these sets have to pay

    try:
        content = loadmat(path)
        images, labels = content["X"], content["y"]
    except Exception as error:  # a damaged file makes the reader raise almost anything
        raise DataError(f"{path} cannot be read as a MATLAB file with X and y ({error}); get it again") from error
    # The authors write the digit 0 as 10, which MATLAB's counting from 1 suggests.
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.reshape(-1).astype(np.int64) % 10
