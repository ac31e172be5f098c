"""Elementwise pieces written out so that XLA can fuse them."""

from keras import ops


def softplus_and_sigmoid(u):
    """`softplus(u)` and `sigmoid(u)` from one exponential and one logarithm.

    The branches are chosen by `where`, not by `abs` and `maximum`, whose derivatives at `u = 0` would make the second
    derivatives of the activations wrong there.
    """
    positive = u >= 0.0
    e = ops.exp(ops.where(positive, -u, u))
    softplus = ops.where(positive, u, 0.0) + ops.log1p(e)
    return softplus, ops.where(positive, 1.0, e) / (1.0 + e)
