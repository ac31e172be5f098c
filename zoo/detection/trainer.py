"""What `fit`, `evaluate` and `predict` of a detector do beside Keras's: their checks, and a function for each size."""

import contextlib
import types

import keras

from keras_apa import _keras_internals as internals
from keras_apa._kernels import detection as kernels
from zoo.detection.inputs import check_arrays, with_image_size


class DetectorTrainer(keras.Model):
    """A Keras model whose losses are those of a detector.

    It has `num_classes`, the `strides` of its stages, and `_wants_losses`, which tells a call what to return.
    """

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return self.get_metrics_result()

    @contextlib.contextmanager
    def _with_losses(self):
        """While it evaluates, a call returns what the losses need, and no time goes into detections."""
        self._wants_losses = True
        try:
            yield
        finally:
            self._wants_losses = False

    def train_step(self, *args):
        return super().train_step(*args[:-1], with_image_size(args[-1]))

    def test_step(self, *args):
        return super().test_step(*args[:-1], with_image_size(args[-1]))

    def fit(self, x=None, y=None, *args, **kwargs):
        self._check_compiled()
        if kwargs.get("class_weight") is not None:
            raise ValueError(
                f"class_weight must be None for detectors; given: {kwargs['class_weight']!r}. "
                "Give roi_loss a loss that knows the class counts."
            )
        self._check_arrays(x, y)
        validation = kwargs.get("validation_data")
        if isinstance(validation, (tuple, list)):
            self._check_arrays(*validation[:2])
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        self._check_compiled()
        self._check_arrays(x, y)
        with self._with_losses():
            return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        self._check_arrays(x)
        return super().predict(x, *args, **kwargs)

    def make_train_function(self, force=False):
        self._make_function_by_size("train_function", super().make_train_function, force)

    def make_test_function(self, force=False):
        self._make_function_by_size("test_function", super().make_test_function, force)

    def make_predict_function(self, force=False):
        self._make_function_by_size("predict_function", super().make_predict_function, force)

    def _make_function_by_size(self, name, make, force):
        """A function for each size, where from the second on Keras's would be one for images of any size."""
        if not kernels.RELAXES_SHAPES or self.run_eagerly:
            make(force)
            return
        functions = {}

        def function(data):
            if isinstance(data, types.GeneratorType):  # `train_on_batch`
                data = list(data)
            spec = getattr(data, "element_spec", None)
            if spec is not None and _is_of_any_size(spec):
                return batches_of_any_size(data)
            size = _sizes(data if spec is None else spec)
            if size not in functions:
                make(force=True)  # puts what it makes in the place of this one
                functions[size] = getattr(self, name)
                setattr(self, name, function)
            return functions[size](data)

        def batches_of_any_size(iterator):
            """Sizes that only the batches tell: they are taken out of the iterator one after the other."""
            outputs = function([next(iterator)])
            for _ in range(self.steps_per_execution - 1):
                if (batch := next(iterator, None)) is not None:
                    outputs = function([batch])
            return outputs

        if force or getattr(self, name) is None:
            setattr(self, name, function)

    def test_on_batch(self, *args, **kwargs):
        with self._with_losses():
            return super().test_on_batch(*args, **kwargs)

    def _check_compiled(self):
        """A detector has losses of its own; those of `compile` would fail within the first step."""
        loss, metrics = internals.take_compiled_loss(self)  # compiling again without is the way out of this error
        if loss is not None:
            raise ValueError(
                f"loss of compile must be left out for detectors; given: {loss!r}. They have losses of their own, and "
                "roi_loss for the classes."
            )
        if metrics is not None:
            raise ValueError(
                f"metrics of compile must be left out for detectors; given: {metrics!r}. "
                "training.detection.metrics.DetectionEvaluation has precisions."
            )

    def _check_arrays(self, x, y=None):
        check_arrays(x, y, self.strides[-1], self.num_classes, getattr(self, "mask_format", None))


def _is_of_any_size(spec):
    """Whether an iterator of TensorFlow does not know the height and width of its images."""
    x = keras.utils.unpack_x_y_sample_weight(spec)[0]
    shape = getattr(x["images"] if isinstance(x, dict) else x, "shape", None)
    return shape is not None and shape.rank == 4 and None in shape.as_list()[1:3]


def _sizes(batch):
    """What tells batches apart that need functions of their own: the shapes but for the number of images."""
    leaves = keras.tree.flatten(batch)
    return tuple(str(x.shape[1:]) if hasattr(x, "shape") else str(x) for x in leaves if x is not None)
