"""Serve an exported model over HTTP: API and web page, uploads within limits, batching, connections, logs, metrics.

Imports: inference, images, pages, base.
Start with: application.py (the routes), then uploads.py (the images of a request) and batcher.py (requests to batches).
"""
