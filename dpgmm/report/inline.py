"""Pictures inside a page: drawings as SVG in the page's own ink, crowded ones as PNG. No file and no network is needed."""

import base64
import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from PIL import Image

LARGEST = 250_000
"""Characters of a drawing beyond which its pixels are smaller."""
TIP = "tip:"
"""Beginning of the name of an artist that has a tooltip; the words follow."""


def tip(artist: Artist, words: str) -> None:
    """Give an artist a tooltip, where the picture becomes a drawing."""
    artist.set_gid(TIP + words)


def of_arviz(plot: Any) -> Figure:
    """The figure of a picture by arviz-plots. pyplot need not remember it: pages are made of many."""
    canvas = plot.viz["figure"].item()
    pyplot.close(canvas)
    return canvas


def picture(canvas: Figure, dpi: int = 130) -> str:
    """The figure as an SVG element, or as an address ``data:image/png;...`` where that is smaller."""
    drawing = svg(canvas)
    return drawing if len(drawing) <= LARGEST else png(canvas, dpi)


def svg(canvas: Figure) -> str:
    """The figure as an SVG element: text stays text, black is the page's ink, the ground is the page's."""
    buffer = io.StringIO()
    # A fixed salt: the same figure is the same text, and equal names in one page stand for equal shapes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dpgmm"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r" <metadata>.*?</metadata>\n", "", text, flags=re.S)
    text = re.sub(r"#000000\b", "currentColor", text)
    # Inside HTML an SVG needs no name spaces.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(rf'<g id="{TIP}([^"]*)">', r"<g><title>\1</title>", text)
    width = float(re.search(r'<svg[^>]* width="([\d.]+)pt"', text)[1])  # pyright: ignore[reportOptionalSubscript]
    size = f'style="width: {width * 4 / 3:.0f}px"'
    return re.sub(
        r'(<svg[^>]*?) width="[\d.]+pt"', rf"\1 {size}", re.sub(r' height="[\d.]+pt"', "", text, count=1), count=1
    )


def png(canvas: Figure, dpi: int = 130) -> str:
    """The figure as PNG of few colours, as an address ``data:image/png;base64,...``."""
    drawn, small = io.BytesIO(), io.BytesIO()
    canvas.savefig(drawn, format="png", dpi=dpi, facecolor="white")
    Image.open(drawn).convert("RGB").quantize(192, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(small.getvalue()).decode()}"
