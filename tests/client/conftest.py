"""The client's tests speak to the same real service as the service's own."""

from tests.service.conftest import model_id, onnx_file, service, torchscript

__all__ = ["model_id", "onnx_file", "service", "torchscript"]
