"""MNIST, Fashion-MNIST and CIFAR as their authors pack them, whole and damaged."""

import gzip
import pickle

import numpy as np
import pytest
import torch

from tests.trainers.data.data_files import Bomb, fails, files_in, idx, pack
from wtdiag.trainers.data import load
from wtdiag.trainers.data.archives import CROP_AND_FLIP


@pytest.mark.parametrize("packed", [False, True])
def test_mnist(mnist, packed):
    name, data_dir, folder, files = mnist
    if packed:
        for file in files:
            (folder / f"{file}.gz").write_bytes(gzip.compress((folder / file).read_bytes()))
            (folder / file).unlink()
    before = files_in(data_dir)
    data = load(name, data_dir=data_dir)
    assert (len(data.train), len(data.test), data.shape, data.classes) == (7, 3, (1, 28, 28), 10)
    pixels = np.frombuffer(files["train-images-idx3-ubyte"][16:], np.uint8).reshape(7, 1, 28, 28)
    assert np.array_equal(data.train.images.numpy(), pixels)
    x, y = data.train.batch(torch.tensor([6, 2]))
    expected = (pixels[[6, 2]] - pixels.mean(dtype=float)) / pixels.std(dtype=float)
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert y.tolist() == [6, 2]
    assert x.dtype is torch.float32
    assert y.dtype is torch.int64
    assert files_in(data_dir) == before


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_mnist_missing_truncated_and_damaged(mnist, file):
    name, data_dir, folder, files = mnist
    path, whole = folder / file, files[file]
    for content in (whole[:-1], whole[:6], b"", b"\xff" * len(whole), whole + b"\0"):
        path.write_bytes(content)
        fails(f"{path}: cannot be read; expected a whole IDX file", name=name, data_dir=data_dir)
    path.unlink()
    fails(f"{path}: is missing; expected .* --download fetches it", name=name, data_dir=data_dir)
    packed = gzip.compress(whole)
    for content in (packed[:-9], b"not gzip", packed[:-8] + b"\0" * 8):
        path.with_name(f"{file}.gz").write_bytes(content)
        fails(rf"{path}\.gz: cannot be read; expected a whole gzip file", name=name, data_dir=data_dir)


def test_mnist_labels_that_do_not_belong_to_the_images(mnist):
    name, data_dir, folder, _ = mnist
    for labels in (np.zeros(6, np.uint8), np.full(7, 10, np.uint8)):
        (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels))
        fails("train-images-idx3-ubyte: expected one 28x28 image for each label", name=name, data_dir=data_dir)


@pytest.mark.parametrize("packed", [False, True])
def test_cifar(cifar, packed, monkeypatch):
    name, data_dir, source, files = cifar
    if packed:
        pack(data_dir, source, monkeypatch)
    before = files_in(data_dir)
    data = load(name, data_dir=data_dir)
    assert (len(data.train), len(data.test), data.shape) == (20, 6, (3, 32, 32))
    assert data.classes == {"cifar10": 10, "cifar100": 100}[name]
    rows = np.vstack([pickle.loads(files[file])["data"] for file, _ in source.train_list])
    assert np.array_equal(data.train.images.flatten(1).numpy(), rows)
    pixels = rows.reshape(20, 3, 32, 32).astype(float)
    expected = (pixels - pixels.mean((0, 2, 3), keepdims=True)) / pixels.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(data.train.batch(torch.arange(20))[0].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert data.train.targets[:4].tolist() == [0, 1, 2, 3]
    assert files_in(data_dir) == before


def test_cifar_missing_truncated_and_malicious(cifar):
    name, data_dir, source, files = cifar
    folder = data_dir / source.base_folder
    for file in (source.train_list[-1][0], source.test_list[0][0], source.meta["filename"]):
        path = folder / file
        for content in (files[file][:-1], b"", pickle.dumps(Bomb())):
            path.write_bytes(content)
            fails(
                f"{path}: damaged; expected the official file, md5 .* --download",
                name=name,
                data_dir=data_dir,
            )
        path.unlink()
        fails(f"{path}: is missing; expected", name=name, data_dir=data_dir)
        path.write_bytes(files[file])
    assert len(load(name, data_dir=data_dir).train) == 20
    fails("is missing; expected this folder of Python batches", name=name, data_dir=data_dir / "elsewhere")


def test_cifar_damaged_archive(cifar, monkeypatch):
    name, data_dir, source, _ = cifar
    archive = pack(data_dir, source, monkeypatch)
    archive.write_bytes(archive.read_bytes()[:-20])
    fails(f"{archive}: damaged; expected the official archive", name=name, data_dir=data_dir)
    assert files_in(data_dir) == [source.filename]


def test_crop_and_flip_is_a_window_of_the_padded_image_or_its_mirror():
    images = torch.randint(1, 256, (90, 3, 9, 9), dtype=torch.uint8)
    out = CROP_AND_FLIP.apply(images, CROP_AND_FLIP.draw(90, torch.Generator().manual_seed(0)))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    seen = set()
    for i in range(90):
        windows = {
            (top, left, flip): window.flip(-1) if flip else window
            for top in range(9)
            for left in range(9)
            for window in [padded[i, :, top : top + 9, left : left + 9]]
            for flip in (False, True)
        }
        (place,) = [key for key, window in windows.items() if torch.equal(window, out[i])]
        seen.add(place)
    assert len(seen) > 60
    for axis, values in ((0, range(9)), (1, range(9)), (2, (False, True))):
        assert {place[axis] for place in seen} == set(values)
