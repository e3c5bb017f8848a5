"""From an ONNX file's bytes to a solved graph."""
