"""Networks: built by name, filled with weights, frozen in part, converted to static graphs and ONNX.

Imports: base.
Start with: builder.py (networks by name, freezing), then networks.py (ResNet9 and the other networks of our own).
"""
