"""Small PNG files."""

from pathlib import Path

from PIL import Image

from app.errors import OnTimeError

MOST_BYTES = 300_000
COLOURS = 256


class PictureFailed(OnTimeError):
    """A picture cannot be taken, or is too large."""


def shrink(file: Path) -> None:
    """Reduce a PNG file to 256 colours, and print its name and size; raise PictureFailed if it is still too large."""
    with Image.open(file) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(file, optimize=True)
    size = file.stat().st_size
    print(f"{file}  {small.width} x {small.height}, {size / 1000:.0f} kB", flush=True)
    if size > MOST_BYTES:
        raise PictureFailed(f"{file} has {size} bytes, more than {MOST_BYTES}: show less in it.")
