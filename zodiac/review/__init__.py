"""Wrong labels: find them, show them, take decisions; and which new photos to label first.

Start with findings.py, which ranks the photos of a run. page.py writes the list, server.py is the local page on which people decide;
decisions go to zodiac/data/corrections.py. May import training, data, serving, images, pages and base.
"""
