"""What all pages have in common: look.css, their texts in English and Chinese, and the switches for language and colours.

Imports: base.
Start with: render.py (a template becomes one file), then texts.yaml (every sentence) and look.css (every colour and component).
"""
