"""Reader of ONNX models."""
