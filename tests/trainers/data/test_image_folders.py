"""Folders of images and ImageNet's: crops, depths, damaged and incomplete ones."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tests.trainers.data.data_files import Bomb, fails, files_in
from wtdiag.probes.errors import InputError
from wtdiag.trainers.data import load
from wtdiag.trainers.data.folders import read_rgb


@pytest.mark.parametrize("name", ["imagefolder", "imagenet"])
def test_folders(imagenet, name):
    before = files_in(imagenet)
    data = load(name, data_dir=str(imagenet), image_size=14)
    assert (len(data.train), len(data.test), data.shape, data.classes) == (10, 4, (3, 14, 14), 2)
    assert data.train.targets.tolist() == [0] * 5 + [1] * 5
    assert files_in(imagenet) == before
    assert load(name, data_dir=imagenet).shape == (3, 224, 224)


def test_evaluation_takes_the_centre_of_the_resized_image(folder):
    data = load("imagefolder", data_dir=folder, image_size=14)
    x, _ = data.test.batch(torch.tensor([0, 2]))
    paths = [folder / "val" / "n01" / "0.png", folder / "val" / "n02" / "0.JPEG"]
    # Shorter side 16, then the central 14x14: 40x30 becomes 21x16, 25x60 becomes 16x38.
    places = [((21, 16), (4, 1)), ((16, 38), (1, 12))]
    for image, path, (size, (left, top)) in zip(x, paths, places, strict=True):
        with Image.open(path) as opened:
            small = opened.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        pixels = np.asarray(small.crop((left, top, left + 14, top + 14)), float).transpose(2, 0, 1) / 255
        mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
        np.testing.assert_allclose(image.numpy(), (pixels - mean) / std, atol=1e-5)


def test_training_crops_are_a_function_of_the_seed_of_each_image_alone(folder):
    split = load("imagefolder", data_dir=folder, image_size=8).train
    seeds = torch.arange(10)
    whole = split.pixels(torch.arange(10), seeds)
    assert torch.equal(split.pixels(torch.tensor([7, 3]), torch.tensor([7, 3])), whole[[7, 3]])
    assert not torch.equal(split.pixels(torch.arange(10), seeds + 10), whole)


def test_training_crops_are_torchvisions(folder):
    split = load("imagefolder", data_dir=folder, image_size=8).train
    crop = v2.Compose([v2.RandomResizedCrop(8), v2.RandomHorizontalFlip()])
    for seed in range(20):
        (pixels,) = split.pixels(torch.tensor([seed % 10]), torch.tensor([seed]))
        torch.manual_seed(seed)
        with Image.open(split.paths[seed % 10]) as image:
            expected = np.asarray(crop(image.convert("RGB"))).transpose(2, 0, 1)
        assert np.array_equal(pixels.numpy(), expected)


def test_damaged_image_is_named(folder):
    for path, index in ((folder / "train/n01/3.png", 3), (folder / "train/n02/0.JPEG", 5)):
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"", b"not an image"):
            path.write_bytes(content)
            split = load("imagefolder", data_dir=folder, image_size=8).train
            with pytest.raises(InputError, match=f"{path}: cannot be read; expected a whole image file") as caught:
                split.batch(torch.tensor([1, index]))
            assert "\n" not in str(caught.value)
        path.write_bytes(whole)


def test_imagefolder_that_is_incomplete(folder):
    fails("elsewhere/train: is missing; expected", name="imagefolder", data_dir=folder / "elsewhere")
    (folder / "val" / "n03").mkdir()
    fails(f"{folder}/val: cannot be read; .* n03", name="imagefolder", data_dir=folder)
    (folder / "val" / "n03" / "0.png").write_bytes(b"")
    fails(f"{folder}: class 'n03' is in only one", name="imagefolder", data_dir=folder)
    (folder / "empty" / "train").mkdir(parents=True)
    fails("empty/train: cannot be read; expected images", name="imagefolder", data_dir=folder / "empty")


def test_imagenet_that_is_incomplete(imagenet):
    meta = imagenet / "meta.bin"
    whole = meta.read_bytes()
    for content in (whole[:-30], b"", b"text", pickle.dumps(Bomb())):
        meta.write_bytes(content)
        fails(f"{meta}: cannot be read; expected the devkit's class list", name="imagenet", data_dir=imagenet)
    torch.save(["not", "classes"], meta)
    fails(f"{meta}: cannot be read; expected the devkit's class list", name="imagenet", data_dir=imagenet)
    meta.unlink()
    fails(f"{meta}: is missing; expected the devkit's class list", name="imagenet", data_dir=imagenet)
    meta.write_bytes(whole)
    (imagenet / "val").rename(imagenet / "validation")
    fails(f"{imagenet}/val: is missing; expected the val images", name="imagenet", data_dir=imagenet)
    (imagenet / "validation").rename(imagenet / "val")
    for part in ("train", "val"):
        (imagenet / part / "n02").rename(imagenet / part / "n77")
    fails(f"{imagenet}/train: cannot be read; .*n77", name="imagenet", data_dir=imagenet)


WIDE = np.repeat([[0, 1, 128, 255]], 4, axis=0)  # grey values of 8 bits


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("8.png", WIDE.astype(np.uint8)),
        ("16.png", (WIDE * 257).astype(np.uint16)),
        ("16.tiff", (WIDE * 257).astype(np.uint16)),
        ("16-big-endian.tif", (WIDE * 257).astype(">u2")),
        ("16.pgm", b"P5 4 4 65535\n" + (WIDE * 257).astype(">u2").tobytes()),
        ("12-in-16.pgm", b"P5 4 4 4095\n" + (WIDE * 4095 / 255).round().astype(">u2").tobytes()),
    ],
)
def test_deep_images_are_those_of_8_bits(tmp_path, name, values):
    path = tmp_path / name
    path.write_bytes(values) if isinstance(values, bytes) else Image.fromarray(values).save(path)
    image = np.asarray(read_rgb(path))
    assert image.shape == (4, 4, 3)
    np.testing.assert_array_equal(image, np.stack([WIDE] * 3, axis=-1))


def test_12_bits_of_16_are_scaled_by_16(tmp_path):
    Image.fromarray(np.full((2, 2), 4095, np.uint16)).save(tmp_path / "dark.png")
    assert np.unique(read_rgb(tmp_path / "dark.png")).tolist() == [16]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_images_without_a_range_are_refused_by_name(folder, dtype):
    path = folder / "train" / "n01" / "0.tiff"
    Image.fromarray(np.ones((4, 4), dtype)).save(path)
    split = load("imagefolder", data_dir=folder, image_size=8).train
    index = split.paths.index(str(path))
    with pytest.raises(InputError, match=rf"^{path}: holds .* whose range is not known; expected 8 or 16 bits"):
        split.batch(torch.tensor([index]))


@pytest.mark.parametrize("name", ["imagefolder", "imagenet"])
def test_hidden_and_junk_folders_are_no_classes(imagenet, name):
    image = (imagenet / "train" / "n01" / "0.png").read_bytes()
    for junk in (
        ".ipynb_checkpoints/0-checkpoint.png",
        "__MACOSX/n01/0.png",
        "@eaDir/0.png",
        "lost+found/0.png",
        "$RECYCLE.BIN/0.png",
    ):
        for place in ("train", "train/n01", "val"):
            path = imagenet / place / junk
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
    (imagenet / "train" / "n01" / "._0.png").write_bytes(b"what macOS keeps beside a file")
    data = load(name, data_dir=imagenet)
    assert data.classes == 2
    assert data.train.targets.tolist() == [0] * 5 + [1] * 5
    assert data.test.targets.tolist() == [0] * 2 + [1] * 2


def test_a_single_class_cannot_be_learned(folder):
    for part in ("train", "val"):
        (folder / part / "n02").rename(folder / part / ".hidden")
    fails(f"^{folder}: holds only the class 'n01'; expected at least two", name="imagefolder", data_dir=folder)
    for part in ("train", "val"):
        (folder / part / "n01").rename(folder / part / ".too")
    fails("train: cannot be read; .*no class folder", name="imagefolder", data_dir=folder)
