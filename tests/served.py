"""A SavedModel run as a server runs it: by TensorFlow's C++ session loader, in a process without Python TensorFlow.

`run` starts that process; this file is its program: python tests/served.py < job.pickle > results.pickle
"""

import ctypes
import importlib.util
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np

_STRING, _STRING_BYTES = 7, 24  # the number of its type, and the size of a TF_TString
_DTYPES = {1: "float32", 3: "int32", 9: "int64"}
_NUMBERS = {np.dtype(name): number for number, name in _DTYPES.items()}


def run(folder, requests, **environment):
    """The outputs by name of each request, or the message of its error.

    Args:
        folder: The SavedModel.
        requests: Pairs of a signature's name and its inputs by name: arrays, or lists of bytes.
        **environment: Variables for the process.
    """
    signatures = read_signatures(folder)
    job = []
    for name, inputs in requests:
        names = {key: info.name for key, info in signatures[name].inputs.items()}
        outputs = {key: info.name for key, info in signatures[name].outputs.items()}
        job.append(({names[key]: value for key, value in inputs.items()}, outputs))
    process = subprocess.run(
        [sys.executable, __file__],
        input=pickle.dumps((str(folder), job)),
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr.decode(errors="replace")[-3000:]
    return pickle.loads(process.stdout)


def read_signatures(folder):
    """The signatures of a SavedModel by name, as protos."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel.FromString((pathlib.Path(folder) / "saved_model.pb").read_bytes())
    return saved_model.meta_graphs[0].signature_def


def read_warmup_requests(folder):
    """The warm-up requests of a SavedModel, as `run` takes them, and the names of the models they are for."""
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    requests, names = [], []
    for record in tf.data.TFRecordDataset(str(folder / "assets.extra" / "tf_serving_warmup_requests")):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        inputs = {key: list(value) if value.dtype == object else value for key, value in inputs.items()}
        requests.append((request.model_spec.signature_name, inputs))
        names.append(request.model_spec.name)
    return requests, names


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class Session:
    """A SavedModel in a C++ session."""

    def __init__(self, folder):
        root = pathlib.Path(importlib.util.find_spec("tensorflow").submodule_search_locations[0])
        ctypes.CDLL(str(root / "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(root / "libtensorflow_cc.so.2"), ctypes.RTLD_GLOBAL)
        for name in (
            "TF_NewStatus TF_NewGraph TF_NewSessionOptions TF_LoadSessionFromSavedModel TF_GraphOperationByName "
            "TF_AllocateTensor TF_TensorData TF_StringGetDataPointer TF_Message"
        ).split():
            getattr(self.library, name).restype = ctypes.c_void_p
        self.library.TF_Dim.restype = ctypes.c_int64
        self.library.TF_StringGetSize.restype = ctypes.c_size_t
        self.status = ctypes.c_void_p(self.library.TF_NewStatus())
        self.graph = ctypes.c_void_p(self.library.TF_NewGraph())
        tags = (ctypes.c_char_p * 1)(b"serve")
        options = ctypes.c_void_p(self.library.TF_NewSessionOptions())
        self.session = ctypes.c_void_p(
            self.library.TF_LoadSessionFromSavedModel(
                options, None, folder.encode(), tags, 1, self.graph, None, self.status
            )
        )
        self._check()

    def __call__(self, inputs, outputs):
        """The tensors `outputs` for the `inputs` by the name of their tensor."""
        places = (_Output * len(inputs))(*map(self._place, inputs))
        wanted = (_Output * len(outputs))(*map(self._place, outputs))
        values = (ctypes.c_void_p * len(inputs))(*map(self._tensor, inputs.values()))
        results = (ctypes.c_void_p * len(outputs))()
        arguments = (None, places, values, len(inputs), wanted, results, len(outputs), None, 0, None, self.status)
        self.library.TF_SessionRun(self.session, *arguments)
        self._check()
        return [self._array(ctypes.c_void_p(result)) for result in results]

    def _place(self, tensor):
        name, _, index = tensor.partition(":")
        operation = self.library.TF_GraphOperationByName(self.graph, name.encode())
        assert operation, name
        return _Output(operation, int(index))

    def _tensor(self, value):
        if isinstance(value, list):
            pointer, data = self._allocate(_STRING, (len(value),), _STRING_BYTES * len(value))
            for i, text in enumerate(value):
                place = ctypes.c_void_p(data + _STRING_BYTES * i)
                self.library.TF_StringInit(place)
                self.library.TF_StringCopy(place, text, ctypes.c_size_t(len(text)))
            return pointer
        value = np.ascontiguousarray(value)
        pointer, data = self._allocate(_NUMBERS[value.dtype], value.shape, value.nbytes)
        ctypes.memmove(data, value.ctypes.data, value.nbytes)
        return pointer

    def _allocate(self, dtype, shape, size):
        dimensions = (ctypes.c_int64 * len(shape))(*shape)
        pointer = self.library.TF_AllocateTensor(dtype, dimensions, len(shape), ctypes.c_size_t(size))
        return pointer, self.library.TF_TensorData(ctypes.c_void_p(pointer))

    def _array(self, tensor):
        shape = [self.library.TF_Dim(tensor, i) for i in range(self.library.TF_NumDims(tensor))]
        data, dtype = self.library.TF_TensorData(tensor), self.library.TF_TensorType(tensor)
        if dtype == _STRING:
            places = [ctypes.c_void_p(data + _STRING_BYTES * i) for i in range(int(np.prod(shape)))]
            texts = [
                ctypes.string_at(self.library.TF_StringGetDataPointer(place), self.library.TF_StringGetSize(place))
                for place in places
            ]
            return np.array(texts, object).reshape(shape)
        size = np.dtype(_DTYPES[dtype]).itemsize * int(np.prod(shape))
        return np.frombuffer(ctypes.string_at(data, size), _DTYPES[dtype]).reshape(shape)

    def _check(self):
        if self.library.TF_GetCode(self.status):
            raise RuntimeError(ctypes.string_at(self.library.TF_Message(self.status)).decode(errors="replace"))


def main():
    folder, job = pickle.loads(sys.stdin.buffer.read())
    session = Session(folder)
    results = []
    for inputs, outputs in job:
        try:
            results.append(dict(zip(outputs, session(inputs, outputs.values()), strict=True)))
        except RuntimeError as error:
            results.append(str(error))
    assert "tensorflow" not in sys.modules
    sys.stdout.buffer.write(pickle.dumps(results))


if __name__ == "__main__":
    main()
