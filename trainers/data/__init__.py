"""Data sets: ``load(name)``, and batches that can be resumed bitwise."""

from __future__ import annotations

import os
from pathlib import Path

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.trainers.data.holdout import hold_out, part
from wtdiag.trainers.data.splits import (
    Data,
    Split,
    array_data,
    batch_count,
    batches,
    evaluation_batches,
    majority,
    noise_batch,
)

__all__ = [
    "Data",
    "Split",
    "array_data",
    "batch_count",
    "batches",
    "evaluation_batches",
    "hold_out",
    "load",
    "majority",
    "names",
    "noise_batch",
    "part",
]

BUILT_IN = ("digits", "glyphs", "rows", "copy", "adding")
DOWNLOADS = ("mnist", "fashion-mnist", "cifar10", "cifar100")
FOLDERS = ("imagefolder", "imagenet")
FILES = ("npz",)


def names() -> tuple[str, ...]:
    """Return the names that :func:`load` knows.

    Examples
    --------
    >>> names()
    ('digits', 'glyphs', 'rows', 'copy', 'adding',
     'mnist', 'fashion-mnist', 'cifar10', 'cifar100', 'imagefolder', 'imagenet', 'npz')
    """
    return BUILT_IN + DOWNLOADS + FOLDERS + FILES


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    image_size: int | None = None,
) -> Data:
    """Load a data set by name.

    ==================  ================================================================  =========
    name                images                                                            augmented
    ==================  ================================================================  =========
    ``digits``          1x8x8 handwritten digits that ship with scikit-learn              no
    ``glyphs``          1x16x16 (or ``image_size``) characters in matplotlib's fonts      no
    ``rows``            8x8x1, sequences of the rows of the digits                        no
    ``copy``            12x10x1, sequences of which one early symbol is to be named       no
    ``adding``          2x20x1, sequences of which two numbers are to be added            no
    ``mnist``           1x28x28, ``data_dir/MNIST/raw/*-ubyte[.gz]``                      no
    ``fashion-mnist``   1x28x28, ``data_dir/FashionMNIST/raw/*-ubyte[.gz]``               no
    ``cifar10``         3x32x32, ``data_dir/cifar-10-batches-py`` or its archive          crop, flip
    ``cifar100``        3x32x32, ``data_dir/cifar-100-python`` or its archive             crop, flip
    ``imagefolder``     3x224x224 (or ``image_size``), ``data_dir/{train,val}/<class>/*`` crop, flip
    ``imagenet``        the same, and ``data_dir/meta.bin``, as torchvision unpacks it    crop, flip
    ``npz``             any arrays X, y, X_test, y_test in the NumPy file ``data_dir``    no
    ==================  ================================================================  =========

    Parameters
    ----------
    name : str
        One of :func:`names`.
    data_dir : path, optional
        Folder of the files, for ``npz`` the file; not needed for the first five.
    download : bool
        Whether torchvision may download missing or damaged files. Without it nothing is written.
    image_size : int, optional
        Height and width in pixels, for the data sets whose rows name it.

    Returns
    -------
    Data
        Training and test split, image shape and number of classes.

    Raises
    ------
    InputError
        If an argument cannot be used, or if files are missing or damaged.

    Examples
    --------
    >>> import torch
    >>> data = load("digits")
    >>> len(data.train), len(data.test), data.shape, data.classes
    (1437, 360, (1, 8, 8), 10)
    >>> x, y = data.train.batch(torch.tensor([0, 1]))
    >>> x.dtype, x.shape, y.dtype
    (torch.float32, torch.Size([2, 1, 8, 8]), torch.int64)
    """
    check_one_of("data", name, names())
    if image_size is not None:
        if name not in ("glyphs", *FOLDERS):
            raise InputError(f"image_size: {image_size} cannot be used, because the images of {name!r} have one size")
        if image_size < 8:
            raise InputError(f"image_size: {image_size} is too small; expected at least 8 pixels")

    # Each source is imported where it is used: torchvision and scikit-learn take seconds.
    if name in BUILT_IN:
        from wtdiag.trainers.data import builtin, tokens

        made = {"digits": builtin.digits, "rows": tokens.rows, "copy": tokens.copying, "adding": tokens.adding}
        return made[name]() if name in made else builtin.glyphs(image_size or 16)
    if data_dir is None:
        source = "a file, so give its path" if name in FILES else "files, so give the folder that holds them"
        raise InputError(f"data_dir: missing; {name!r} is read from {source}")
    folder = Path(data_dir).expanduser()
    if name in FILES:
        from wtdiag.trainers.data.npz import read_npz

        return read_npz(folder)
    if name in DOWNLOADS:
        from wtdiag.trainers.data.archives import read_archive

        return read_archive(name, folder, download=download)
    from wtdiag.trainers.data.folders import read_imagefolder, read_imagenet

    return (read_imagefolder if name == "imagefolder" else read_imagenet)(folder, image_size or 224)
