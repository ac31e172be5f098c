"""ONNX, from the TensorFlow backend through tf2onnx, or from PyTorch's own exporter."""

import json
import warnings

import keras
import numpy as np

from zoo.serving.graph import Graph, in_float32, plain_log1p, quiet
from zoo.serving.saved_model import plain_convolutions, serving_default

OPSET = 18


def write_onnx(model, folder, settings):
    """Write `model.onnx` and a description into `folder`.

    Raises: ValueError: If the model has an operation that ONNX lacks.
    """
    import onnx

    model = in_float32(model)
    convert = {"tensorflow": _from_tensorflow, "torch": _from_torch}[keras.config.backend()]
    with Graph(model, settings) as graph:
        proto = convert(graph)
    _name_batch(proto)
    description = json.dumps(settings.description())
    onnx.helper.set_model_props(proto, {"keras_apa": description})
    onnx.checker.check_model(proto)
    onnx.save(proto, folder / "model.onnx")
    (folder / "model.json").write_text(description, encoding="utf-8")


def _from_tensorflow(graph):
    import tf2onnx

    function = serving_default(graph)
    with plain_convolutions(graph.model, split=False), plain_log1p(), quiet("tf2onnx"):
        proto, _ = tf2onnx.convert.from_function(
            function,
            input_signature=function.input_signature,
            opset=OPSET,
            custom_op_handlers={"Log1p": (_log1p, []), "Erfc": (_erfc, [])},
        )
    if missing := unknown_operations(proto):
        raise ValueError(f"ONNX has no operation for these of the model's TensorFlow graph: {', '.join(missing)}.")
    return proto


def unknown_operations(proto):
    """Names of the operations that ONNX does not have; tf2onnx copies what it does not know."""
    import onnx

    nodes = list(proto.graph.node)
    for node in nodes:
        nodes.extend(n for part in node.attribute if part.HasField("g") for n in part.g.node)
    return sorted({node.op_type for node in nodes if not node.domain and not onnx.defs.has(node.op_type)})


def _log1p(context, node, name, arguments):
    """log(1 + x), which ONNX lacks; PyTorch's exporter writes softplus with the same rounding."""
    one = context.make_const(f"{name}_one", np.ones((), "float32"))
    _replace(context, node, "Log", context.make_node("Add", [node.input[0], one.output[0]]).output)


def _erfc(context, node, name, arguments):
    """1 - erf(x), which ONNX lacks; of GELU."""
    one = context.make_const(f"{name}_one", np.ones((), "float32"))
    _replace(context, node, "Sub", [one.output[0], context.make_node("Erf", [node.input[0]]).output[0]])


def _replace(context, node, operation, inputs):
    """Puts another operation in the place of a node."""
    dtypes, shapes = [context.get_dtype(node.output[0])], [context.get_shape(node.output[0])]
    context.remove_node(node.name)
    context.make_node(operation, inputs, name=node.name, outputs=node.output, dtypes=dtypes, shapes=shapes)


def _from_torch(graph):
    import torch

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = graph.model

        def forward(self, images):
            return tuple(graph(images).values())

    images = keras.ops.convert_to_tensor(np.repeat(graph.example(), 2, axis=0))
    sizes = {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate((None, *graph.image_shape)) if size is None}
    with warnings.catch_warnings(), quiet("torch.onnx"), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                Module().eval(),
                (images,),
                input_names=["images"],
                output_names=graph.output_names,
                dynamic_shapes=(sizes,),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise ValueError(f"PyTorch cannot write this model as ONNX: {reason}") from error
    return program.model_proto


def _name_batch(proto):
    """The first axis of each input and output is called `batch`."""
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
