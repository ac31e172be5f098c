"""Which parameters an optimizer may shrink."""

from __future__ import annotations

import keras

from keras_apa._keras_internals import is_decayed

_ACTIVATIONS = ("kappa", "lambda")
_NORMS = ("gamma", "beta")
_BIASES = ("bias",)


def no_weight_decay(
    optimizer: keras.optimizers.Optimizer, model: keras.layers.Layer, norms: bool = False, biases: bool = False
) -> list[keras.Variable]:
    """Exempt the learned parameters of activations from an optimizer's `weight_decay`.

    Weight decay pulls `kappa` and `lambda` to 0. AGLU is then the linear `x / e`, which is not a neutral activation.
    Variables that are exempt already stay exempt.

    Call this function after the model is built and before the first training step. Call it again after you load a
    compiled model, because Keras does not save the exemption.

    Args:
        optimizer: A `keras.optimizers.Optimizer`. It may be inside a `LossScaleOptimizer`.
        model: The model or layer whose parameters to exempt. It must be built.
        norms: Whether to exempt the scales and offsets of normalisation layers too.
        biases: Whether to exempt biases too.

    Returns:
        A list of the exempted variables.

    Raises:
        ValueError: If `optimizer` is not a Keras optimizer, or if `model` has no weights yet.

    Source: the authors' classification recipes, which exempt `kappa` and `lambda` only.

    >>> from keras_apa import no_weight_decay
    >>> from keras_apa.layers import AGLU
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), AGLU()])
    >>> optimizer = keras.optimizers.SGD(0.1, weight_decay=1e-4)
    >>> [variable.name for variable in no_weight_decay(optimizer, model)]
    ['kappa', 'lambda']
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(f"optimizer must be a keras.optimizers.Optimizer; given: {optimizer!r}.")
    if not model.weights:
        raise ValueError("model must have weights; given: none yet. Build it first: call it once, or give it an Input.")
    names = _ACTIVATIONS + (_NORMS if norms else ()) + (_BIASES if biases else ())
    exempt = [variable for variable in model.trainable_variables if variable.name in names]
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    # Keras replaces what it was told before.
    earlier = [variable for variable in model.trainable_variables if not is_decayed(inner, variable)]
    inner.exclude_from_weight_decay(var_list=[*earlier, *exempt])
    return exempt
