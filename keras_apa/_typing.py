"""Types that annotations share."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from numpy.typing import ArrayLike

# A tensor of any backend, a `keras.KerasTensor` or a `keras.Variable`. Keras has no types, and those of three backends
# have no class in common: to a type checker a tensor can be anything.
Tensor: TypeAlias = Any
# Where numbers, nested lists and NumPy arrays are taken as well.
TensorLike: TypeAlias = Tensor | ArrayLike
# With None for a size that is not known yet.
Shape: TypeAlias = tuple[int | None, ...]
# Images of each class. `ClassCounts` is an `ArrayLike` by its method `__array__`.
ClassCountsLike: TypeAlias = ArrayLike | Mapping[str, int] | Mapping[int, int]
# What `keras.initializers.get`, `keras.regularizers.get` and `keras.constraints.get` take: a name, a config, an object.
Identifier: TypeAlias = str | dict[str, Any] | Callable[..., Tensor] | None
DataFormat: TypeAlias = Literal["channels_last", "channels_first"]
LambdaGradient: TypeAlias = Literal["exact", "paper"]
# Of the binary losses.
Activation: TypeAlias = Literal["sigmoid", "gumbel"]
ClassReduction: TypeAlias = Literal["sum", "mean"]
