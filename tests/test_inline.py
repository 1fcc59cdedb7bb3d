"""Pictures inside a page: drawings that take the page's ink, pixels where a drawing is large, and words that stay words."""

import base64
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dpgmm.report import inline


def drawing(words="weight"):
    canvas = Figure(figsize=(3, 2))
    axis = canvas.subplots()
    [line] = axis.plot([0, 1], [0, 1], color="#0072B2")
    axis.set_xlabel(words)
    inline.tip(line, words)
    return canvas


@pytest.mark.quick("report")
@pytest.mark.parametrize("words", ["weight", "<script>alert(1)</script>", "a & b \"c\" 'd'", "µ ≤ Σ"])
def test_a_drawing_is_well_formed_and_its_words_are_escaped(words):
    text = inline.picture(drawing(words))
    root = ElementTree.fromstring(text)
    assert root.tag == "svg"
    assert [title.text for title in root.iter("title")] == [words]
    assert words in [element.text for element in root.iter("text")]
    assert "<script" not in text


def test_a_drawing_takes_the_ink_and_the_ground_of_the_page():
    text = inline.picture(drawing())
    assert "#000000" not in text
    assert "#ffffff" not in text
    assert text.count("currentColor") > 5
    assert "#0072b2" in text
    assert inline.picture(drawing()) == text


def test_a_crowded_drawing_is_pixels_of_the_same_size():
    canvas = drawing()
    x = np.random.default_rng(0).normal(size=(2, 5_000))
    canvas.axes[0].scatter(*x, s=3)
    found = inline.picture(canvas, dpi=100)
    head, pixels = found.split(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(pixels))).size == (300, 200)
