"""nn-Meter's builder on this package: its functions, its YAML files and its files of results.

Models are model graphs of this package instead of Keras models, written as ``.tflite`` or ``.onnx``.
"""
