"""Load an exported model, check its files, and run it with one of several engines. Needs no training code.

Imports: images, base.
Start with: exported_model.py (load), then engines.py (how each engine runs the model).
"""
