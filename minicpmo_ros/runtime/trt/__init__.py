"""Stages on NVIDIA cards: TensorRT-RTX (RTX cards) and TensorRT (Jetson), behind one class.

`builder` makes an engine of an ONNX file, with no card where the library allows it; `card` is all
that is asked of CUDA; `engine` loads and runs a file; `stage` makes of engines what
`runtime.stages` asks for, with caches that stay on the card. No torch.
"""
