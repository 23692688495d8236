"""The forms a network is shipped in: bits of a quantized weight, and which exported form is for which device. Loads no torch."""

from __future__ import annotations

BITS = (8, 4)
"""Of a quantized weight; see `merino_net.network.quantized_weights`."""

DEVICES = (
    (
        "Intel CPU",
        "OpenVINO, in `openvino/`",
        "the fastest measured there; with AMX, bfloat16 is about three times as fast as float32",
    ),
    ("ARM CPU", "ONNX Runtime, in `onnx/`", "its CPU provider; wheels for aarch64 are on PyPI"),
    (
        "NVIDIA Jetson, GPU",
        "ONNX Runtime, in `onnx/`",
        "the CUDA or TensorRT provider, from NVIDIA's builds (`TensorrtExecutionProvider`)",
    ),
    ("anything PyTorch runs on", "`model.safetensors`", "transformers"),
)
"""Device, runtime, remark: which of the exported forms is for what."""
