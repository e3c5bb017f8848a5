"""The HTTP API. It answers from solved graphs in numpy; torch and onnx are never imported here."""
