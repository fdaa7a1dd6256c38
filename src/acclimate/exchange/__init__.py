"""Models and predictions across the border: weights from elsewhere, ONNX, files for other programs."""
