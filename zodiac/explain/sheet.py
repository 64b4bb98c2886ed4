"""A picture of what the network sees of each photo, here and in another program."""

from PIL import Image, ImageDraw, ImageFont

from zodiac.base import formatting
from zodiac.explain import programs

SIDE, GAP, LINE = 224, 16, 20  # pixels
MOST = 12  # photos
PAPER, INK, QUIET = (255, 255, 255), (27, 35, 48), (83, 95, 110)


def draw(runner, own, other, text, step):
    """PIL image: a row per photo, what the network sees in this program beside what it sees in another one.

    Args:
        runner: running.Runner; own, other: Programs; text: the explanation; step: the last step of the transform, see programs.seen.
    """
    photos = runner.photos[:MOST]
    font = _font()
    lines = _lines(_plain(text), ImageDraw.Draw(Image.new('RGB', (1, 1))), font, SIDE)
    width, top = 2 * SIDE + 3 * GAP, GAP + (1 + len(lines)) * LINE
    sheet = Image.new('RGB', (width, top + len(photos) * (SIDE + LINE + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), 'what the network sees here', INK, font)
    pen.text((SIDE + 2 * GAP, GAP), 'what it sees there', INK, font)
    for number, line in enumerate(lines, 1):
        pen.text((SIDE + 2 * GAP, GAP + LINE * number), line, QUIET, font)
    for number, photo in enumerate(photos):
        y = top + number * (SIDE + LINE + GAP)
        for place, program in enumerate((own, other)):
            image = programs.seen(runner.inputs(number, program)[0], step)
            sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.NEAREST), (GAP + place * (SIDE + GAP), y))
        name = _plain(formatting.short(f'{number + 1}  {photo.path}', 52))
        pen.text((GAP, y + SIDE + 2), name, INK, font)
    return sheet


def _font():
    try:
        return ImageFont.load_default(13)
    except (TypeError, OSError):  # Pillow before 10.1, or built without FreeType
        return ImageFont.load_default()


def _plain(text):
    """Pillow's own font has Latin characters only."""
    return text.replace('…', '...').encode('ascii', 'replace').decode()


def _lines(text, pen, font, width):
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if lines[-1] and pen.textlength(longer, font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
