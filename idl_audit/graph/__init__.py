"""MODEL FILE -> GRAPH: safe readers, one vocabulary (ONNX), and the original network as the oracle."""
