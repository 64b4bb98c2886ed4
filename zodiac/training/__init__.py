"""Training: steps, loss, optimizers, callbacks, checkpoints, resume, several processes.

Imports: models, data, inference, report (for metrics), base.
Start with: callbacks.py (what happens during `fit`), then run_log.py (a logged column is made there) and checkpoint.py.
"""
