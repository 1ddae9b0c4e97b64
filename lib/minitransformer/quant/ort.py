"""ONNX Runtime behind one call; its packages are imported only when a kernel asks for them."""

import torch


def session_of(tensors: dict[str, torch.Tensor], **attributes):
    """A one-thread session of one node, y (M, N) = MatMulNBits(x (M, K), *tensors); ImportError
    where it is not installed,
    RuntimeError where it refuses.

    The weights are handed over beside the model: inside it they would be held twice."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    outside = [numpy_helper.from_array(t.numpy(), name) for name, t in tensors.items()]
    for tensor in outside:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=tensor.name)
    node = helper.make_node(
        "MatMulNBits", ["x", *tensors], ["y"], domain="com.microsoft", **attributes
    )
    info = helper.make_tensor_value_info
    ends = [
        [info(name, TensorProto.FLOAT, ["M", attributes[n]])]
        for name, n in (("x", "K"), ("y", "N"))
    ]
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(
        helper.make_graph([node], "linear", *ends, outside), opset_imports=versions, ir_version=10
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_cpu_mem_arena = 1, False
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(t.numpy()) for t in tensors.values()]
    options.add_external_initializers(list(tensors), values)
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its own exceptions share no narrower class
        raise RuntimeError(f"ONNX Runtime refused MatMulNBits: {error}") from error
