"""TVM on this machine's CPU: compiling ONNX files, tuning their kernels, and running them with one thread."""
