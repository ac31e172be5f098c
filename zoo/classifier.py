"""The class of the zoo's models: a functional model with class names and image preprocessing."""

import os
from collections.abc import Mapping, Sequence

import keras

from keras_apa._text import as_text
from zoo.preprocessing import Preprocessing
from zoo.serving.onnx import unknown_operations
from zoo.serving.saved_model import plain_convolutions
from zoo.serving.target import is_installed
from zoo.value_range import range_after, sees_images


@keras.saving.register_keras_serializable(package="keras_apa")
@sees_images
class Classifier(keras.Model):
    """A functional `keras.Model` that knows its class names and its image preprocessing, and saves both.

    If it has a `preprocessing`, it warns, once, about images that look as if they were not prepared by it. See
    `zoo.value_range.warn_of_range`.

    Args:
        inputs, outputs: As in `keras.Model`.
        name: The name of the model.
        preprocessing: A `zoo.Preprocessing`, or `None` if it is unknown. It is not part of the graph.
        class_names: One name per output, or `None` if they are unknown. `keras_apa.ClassCounts` describes the names.
        batches_tracked: The batch counts of a PyTorch checkpoint's batch norms, by key. They are needed to convert
            the model back to PyTorch.
        trained_range: The smallest and the largest value of the training images, for a model whose `preprocessing` is
            unknown. `fit` and `train_on_batch` set it if they are given arrays.

    Input shape: that of `inputs`.
    Output shape: that of `outputs`, which is `(batch, classes)` with a classifier.

    Raises:
        ValueError: If the number of `class_names` is not the number of outputs.

    >>> import zoo
    >>> model = zoo.create_model("resnet8", classes=2)
    >>> model.class_names = ["cat", "dog"]
    >>> type(model).from_config(model.get_config()).class_names
    ('cat', 'dog')
    """

    def __init__(
        self,
        inputs,
        outputs,
        name=None,
        *,
        preprocessing=None,
        class_names=None,
        batches_tracked=None,
        trained_range=None,
        **kwargs,
    ):
        super().__init__(inputs, outputs, name=name, **kwargs)
        self.preprocessing = preprocessing
        self.class_names = class_names
        self.batches_tracked = batches_tracked
        self.trained_range = trained_range

    @property
    def preprocessing(self):
        """The `zoo.Preprocessing` for images of this model, or `None`."""
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, value):
        if isinstance(value, Mapping):
            value = keras.saving.deserialize_keras_object(value)
        if value is not None and not isinstance(value, Preprocessing):
            raise ValueError(f"preprocessing must be a zoo.Preprocessing or None; given: {value!r}.")
        self._preprocessing = value

    def wanted_range(self):
        """The smallest and the largest value of a prepared image, or `None` if `preprocessing` is unknown."""
        return self.preprocessing and range_after(self.preprocessing)

    @property
    def trained_range(self):
        """The smallest and the largest value of the training images, if there was no preprocessing, or `None`."""
        return self._trained_range

    @trained_range.setter
    def trained_range(self, value):
        self._trained_range = value and tuple(map(float, value))

    @property
    def class_names(self):
        """A tuple with the name of each output, or `None`."""
        return self._class_names

    @class_names.setter
    def class_names(self, value):
        if value is not None:
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ValueError(f"class_names must be a sequence of names or None; given: {value!r}.")
            value = tuple(as_text(name) for name in value)
            outputs = self.output_shape[-1] if isinstance(self.output_shape, tuple) else None
            if len(value) != outputs:
                raise ValueError(f"class_names must have {outputs} names, one an output; given: {len(value)}.")
        self._class_names = value

    @property
    def batches_tracked(self):
        """`num_batches_tracked` of a PyTorch checkpoint by key, or `None`."""
        return self._batches_tracked and dict(self._batches_tracked)

    @batches_tracked.setter
    def batches_tracked(self, value):
        self._batches_tracked = value and tuple(value.items())

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        """Write the network alone, as `keras.Model.export`; `zoo.export` adds its preprocessing and probabilities.

        On TensorFlow, ONNX and OpenVINO get grouped convolutions that they can run: Keras's are compiled with XLA.

        Raises:
            ValueError: If ONNX lacks an operation of TensorFlow's graph; there is no file then. Or for a SavedModel on
                PyTorch, which Keras cannot write.
            ImportError: If OpenVINO is asked for and not installed.
        """
        if format == "tf_saved_model" and keras.backend.backend() == "torch":
            raise ValueError(
                "format must be one that Keras's own export can write on PyTorch, such as 'onnx'; given: "
                "'tf_saved_model'. zoo.export(model, folder, format=\"tf_saved_model\") writes it."
            )
        if format == "openvino" and not is_installed("openvino"):
            raise ImportError("format='openvino' needs a package that is not installed: openvino; pip install openvino")
        arguments = {"format": format, "verbose": verbose, "input_signature": input_signature, **kwargs}
        if keras.backend.backend() != "tensorflow" or format not in ("onnx", "openvino"):
            return super().export(filepath, **arguments)
        with plain_convolutions(self, split=False):
            super().export(filepath, **arguments)
        if format == "onnx":
            import onnx

            if missing := unknown_operations(onnx.load(filepath)):
                os.remove(filepath)
                raise ValueError(
                    f"ONNX has no operation for these of the model's TensorFlow graph: {', '.join(missing)}. "
                    'zoo.export(model, folder, format="onnx") can write some of them.'
                )
        return None

    def get_config(self):
        names = self.class_names
        return {
            **super().get_config(),
            "preprocessing": self.preprocessing and keras.saving.serialize_keras_object(self.preprocessing),
            "class_names": names and list(names),
            "batches_tracked": self.batches_tracked,
            **({"trained_range": list(self.trained_range)} if self.trained_range else {}),
        }
