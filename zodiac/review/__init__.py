"""Wrong labels: find them, show them, take decisions; and which new photos to label first.

Imports: training, data, report, serving, images, pages, base.
Start with: findings.py (the judging), then listing.py (the ranked list) and server.py (the page on which people decide).
"""
