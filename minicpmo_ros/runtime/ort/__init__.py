"""Stages in onnxruntime, on a CPU or a device. No torch."""
