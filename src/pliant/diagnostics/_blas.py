"""Limits NumPy's linear algebra to one thread."""

from contextlib import AbstractContextManager

import threadpoolctl


def one_blas_thread() -> AbstractContextManager[object]:
    """Limits NumPy's BLAS to one thread: threads that wait for each other make a small SVD take seconds.

    Example:
      >>> import numpy as np
      >>> with one_blas_thread():
      ...     singular = np.linalg.svd(np.eye(2), compute_uv=False)
      >>> singular.tolist()
      [1.0, 1.0]

    References:
      threadpoolctl, `threadpool_limits <https://github.com/joblib/threadpoolctl>`_.

    Differs from:
      Nothing known.
    """
    return threadpoolctl.threadpool_limits(1, user_api="blas")
