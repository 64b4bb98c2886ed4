"""Load an exported folder after checking its hashes, and run it: `predict(batch) -> probabilities`.

Imports: images, base.
Start with: runtime.py (load, predict), then engines.py (Paddle Inference, ONNX Runtime, OpenVINO): a new engine goes there.
"""
