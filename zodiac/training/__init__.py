"""Training: steps, loss, optimizers, callbacks, checkpoints, resuming, several processes.

Imports: models, data, inference, base.
Start with: callbacks.py (what happens during `fit`), run_log.py (log.csv, with the columns of zodiac.base.columns), checkpoint.py.
"""
