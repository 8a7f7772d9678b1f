"""Data sets without files: scikit-learn's digits, and glyphs drawn in matplotlib's fonts."""

from __future__ import annotations

import math
import string
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from wtdiag.trainers.data.splits import Data, array_data

CHARACTERS = string.digits + string.ascii_uppercase

# The fonts in matplotlib's own folder that have all of the characters, upright or slanted.
FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"),
)
TRAIN_JITTERS, TEST_JITTERS = 8, 2
OVERSAMPLING = 2


def digits() -> Data:
    """Return scikit-learn's handwritten digits: 1x8x8, pixels 0 to 16, 1437 for training and 360 for testing.

    The split is stratified by class and always the same.
    """
    images, targets = load_digits(return_X_y=True)
    parts = train_test_split(images, targets, test_size=360, stratify=targets, random_state=0)
    train_x, test_x = (torch.from_numpy(x.reshape(-1, 1, 8, 8).astype(np.uint8)) for x in parts[:2])
    train_y, test_y = (torch.from_numpy(y.astype(np.int64)) for y in parts[2:])
    return array_data("digits", (train_x, train_y), (test_x, test_y), classes=10)


def glyphs(size: int) -> Data:
    """Return the ten digits and 26 capitals in 21 fonts, each drawn ten times: 1 x size x size.

    Every drawing is jittered by its own rotation, shear, scale and shift. Eight of the ten (6048 images) are for
    training and two (1512 images) for testing, so the test set has new jitters of known fonts and characters. The
    images are always the same.
    """
    fonts = [Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf") for font in FONTS]
    canvas = OVERSAMPLING * size
    drawn = torch.stack([_draw(font, character, canvas) for font in fonts for character in CHARACTERS])
    targets = torch.arange(len(CHARACTERS)).repeat(len(fonts))
    generator = torch.Generator().manual_seed(0)
    jittered = [_jitter(drawn, generator) for _ in range(TRAIN_JITTERS + TEST_JITTERS)]
    train, test = jittered[:TRAIN_JITTERS], jittered[TRAIN_JITTERS:]
    return array_data(
        "glyphs",
        (torch.cat(train), targets.repeat(TRAIN_JITTERS)),
        (torch.cat(test), targets.repeat(TEST_JITTERS)),
        classes=len(CHARACTERS),
    )


def _draw(font: Path, character: str, size: int) -> Tensor:
    """Return one white character in the middle of a black square, float32 (1, size, size) from 0 to 255."""
    # The basic layout draws the same image whether or not Pillow was built with a text shaper.
    face = ImageFont.truetype(str(font), 0.8 * size, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = face.getbbox(character)
    image = Image.new("L", (size, size))
    middle = (size - left - right) / 2, (size - top - bottom) / 2
    ImageDraw.Draw(image).text(middle, character, fill=255, font=face)
    return torch.from_numpy(np.array(image, dtype=np.float32))[None]


def _jitter(drawn: Tensor, generator: torch.Generator) -> Tensor:
    """Return the drawings (n, 1, H, W), each jittered in its own way and reduced to pixels, as uint8."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(drawn), generator=generator)

    angle, shear = uniform(-math.pi / 12, math.pi / 12), uniform(-0.2, 0.2)
    scale, x, y = uniform(0.9, 1.3), uniform(-0.15, 0.15), uniform(-0.15, 0.15)  # of the half width
    cos, sin = scale * angle.cos(), scale * angle.sin()
    inverse = torch.stack([cos, shear * cos - sin, x, sin, shear * sin + cos, y], dim=1).view(-1, 2, 3)
    grid = affine_grid(inverse, list(drawn.shape), align_corners=False)
    moved = grid_sample(drawn, grid, align_corners=False)
    return avg_pool2d(moved, OVERSAMPLING).round().to(torch.uint8)
