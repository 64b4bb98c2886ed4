"""Networks: built by name, filled with weights, frozen, converted to static graphs and ONNX.

Imports: base.
Start with: builder.py (networks by name; their table is zodiac.base.networks), then resnet9.py (a network).
"""
