"""Used by every other wing: user-facing errors and exit statuses, atomic file writes, the device, the schema of the settings.

Imports: no other wing. Only paddle_setup.py imports Paddle when it is imported.
Start with: errors.py (exit statuses), then files.py (atomic writes).
"""
