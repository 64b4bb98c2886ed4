"""Write an exported model as a static web page that classifies photos in the browser: infer/web/.

Imports: inference, images, pages, base.
Start with: folder.py (what is written), then page.html and worker.js (what runs in the browser).
"""
