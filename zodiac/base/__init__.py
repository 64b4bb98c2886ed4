"""What every other wing needs: user-facing errors and exit statuses, atomic files and hashes, the device, the checked schema.

Imports: no other wing, and not Paddle until a function needs it.
Start with: errors.py (exit statuses), then files.py (atomic writes).
"""
