"""An exported model over HTTP: the application and its page, uploads within limits, batching, connections, metrics.

Imports: inference, images, base.
Start with: application.py (the routes), then uploads.py (what a request may send) and batcher.py (requests to batches).
"""
