"""Data sets in their true formats, whole and damaged; batches that can be resumed bitwise."""

import gc
import gzip
import hashlib
import multiprocessing
import pickle
import random
import socket
import struct
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.rundir import Hold
from wtdiag.trainers.data import BUILT_IN, batch_count, batches, evaluation_batches, hold_out, load, names
from wtdiag.trainers.data.archives import CROP_AND_FLIP
from wtdiag.trainers.data.folders import read_rgb
from wtdiag.trainers.data.holdout import Part
from wtdiag.trainers.data.splits import ArraySplit, Augmentation


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(self, address):
        if self.family != socket.AF_UNIX and address[0] != "127.0.0.1":
            raise AssertionError(f"a test reached for {address}")
        return connect(self, address)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def fails(message, **arguments):
    with pytest.raises(InputError, match=message) as caught:
        load(**arguments)
    assert "\n" not in str(caught.value)


# ---- built in ----------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_split_by_class():
    from sklearn.datasets import load_digits

    data = load("digits")
    images, targets = load_digits(return_X_y=True)
    ours = torch.cat([data.train.images, data.test.images]).flatten(1).numpy()
    assert sorted(map(bytes, ours)) == sorted(map(bytes, images.astype(np.uint8)))
    key = {image.tobytes(): target for image, target in zip(images.astype(np.uint8), targets, strict=True)}
    for split in (data.train, data.test):
        assert [key[image.numpy().tobytes()] for image in split.images] == split.targets.tolist()
        assert torch.bincount(split.targets).max() - torch.bincount(split.targets).min() <= 8
    x, _ = data.train.batch(torch.arange(len(data.train)))
    assert x.mean().item() == pytest.approx(0, abs=1e-6)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [16, 32])
def test_glyphs_are_distinct_and_the_same_every_time(size):
    data, again = load("glyphs", image_size=size), load("glyphs", image_size=size)
    assert data.shape == (1, size, size)
    assert data.classes == 36
    assert torch.equal(data.train.images, again.train.images)
    train = {image.numpy().tobytes() for image in data.train.images}
    test = {image.numpy().tobytes() for image in data.test.images}
    assert len(train) == len(data.train) == 6048
    assert len(test) == len(data.test) == 1512
    assert not train & test
    for split in (data.train, data.test):
        assert torch.equal(torch.bincount(split.targets), torch.full((36,), len(split) // 36))


def test_glyphs_stay_inside_and_look_like_their_class():
    data = load("glyphs")
    x, y = data.train.images.float(), data.train.targets
    assert x.amax((1, 2, 3)).min() > 100  # no blank image
    border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]], -1)
    assert border.mean() < 0.01 * x.amax()
    # The nearest class mean knows many of the test images (chance: 1/36), so labels belong to images.
    means = torch.stack([x[y == c].mean(0) for c in range(36)]).flatten(1)
    guess = torch.cdist(data.test.images.float().flatten(1), means).argmin(1)
    assert (guess == data.test.targets).float().mean() > 0.3


# ---- MNIST and Fashion-MNIST: idx-ubyte --------------------------------------------------------------


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_files(rng, train=7, test=3):
    files = {}
    for part, n in (("train", train), ("t10k", test)):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx(np.arange(n, dtype=np.uint8) % 10)
    return files


@pytest.fixture(params=["mnist", "fashion-mnist"])
def mnist(request, tmp_path):
    """Name, data_dir, folder of the files and their bytes, uncompressed."""
    folder = tmp_path / {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[request.param] / "raw"
    folder.mkdir(parents=True)
    files = mnist_files(np.random.default_rng(0))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return request.param, tmp_path, folder, files


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


# ---- CIFAR: python batches ---------------------------------------------------------------------------


def cifar_files(name, rng):
    def batch(labels, n):
        rows = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        return pickle.dumps({"data": rows, labels: [i % 5 for i in range(n)]})

    if name == "cifar10":
        files = {f"data_batch_{i}": batch("labels", 4) for i in range(1, 6)}
        return files | {
            "test_batch": batch("labels", 6),
            "batches.meta": pickle.dumps({"label_names": list("abcdefghij")}),
        }
    return {
        "train": batch("fine_labels", 20),
        "test": batch("fine_labels", 6),
        "meta": pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]}),
    }


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path, monkeypatch):
    """Name, data_dir, the class whose checksums are those of our small files, and the files' bytes."""
    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[request.param]
    files = cifar_files(request.param, np.random.default_rng(0))
    for listing in ("train_list", "test_list"):
        small = [[file, md5(files[file])] for file, _ in getattr(source, listing)]
        monkeypatch.setattr(source, listing, small)
    meta = source.meta["filename"]
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5(files[meta])})
    folder = tmp_path / source.base_folder
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return request.param, tmp_path, source, files


def pack(data_dir, source, monkeypatch):
    """Replace the folder by its archive."""
    archive, folder = data_dir / source.filename, data_dir / source.base_folder
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, source.base_folder)
    monkeypatch.setattr(source, "tgz_md5", md5(archive.read_bytes()))
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return archive


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


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("an unverified pickle was read",))


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


# ---- downloads ---------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """An HTTP server on this machine: its files by name, and the names it breaks off half-way."""
    files, broken = {}, set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            if name not in files:
                self.send_error(404)
                return
            content = files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[: len(content) // 2] if name in broken else content)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=partial(http.serve_forever, poll_interval=0.01))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/", files, broken
        http.shutdown()
        thread.join()


@pytest.fixture
def mnist_mirror(server, monkeypatch):
    url, served, broken = server
    contents = mnist_files(np.random.default_rng(1))
    served |= {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in contents.items()}
    monkeypatch.setattr(datasets.MNIST, "mirrors", [url])
    monkeypatch.setattr(datasets.MNIST, "resources", [(name, md5(gz)) for name, gz in served.items()])
    return served, broken


def test_download_only_when_asked_and_only_what_is_needed(mnist_mirror, tmp_path, capfd):
    served, _ = mnist_mirror
    data_dir = tmp_path / "new" / "data"
    fails("is missing; expected .* --download fetches it", name="mnist", data_dir=data_dir)
    assert not data_dir.exists()
    assert len(load("mnist", data_dir=data_dir, download=True).train) == 7
    assert [file for file in files_in(data_dir) if ".download" in file] == []
    served.clear()  # whole files are not fetched again
    assert len(load("mnist", data_dir=data_dir, download=True).train) == 7
    assert capfd.readouterr().out == ""


def test_download_replaces_a_damaged_file(mnist_mirror, tmp_path):
    load("mnist", data_dir=tmp_path, download=True)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert len(load("mnist", data_dir=tmp_path, download=True).train) == 7
    assert path.read_bytes() == whole


@pytest.mark.parametrize("how", ["absent", "broken off", "wrong content"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # torchvision drops urllib's HTTPError unclosed
def test_a_failed_download_leaves_nothing(mnist_mirror, tmp_path, how):
    served, broken = mnist_mirror
    last = "t10k-labels-idx1-ubyte.gz"
    if how == "absent":
        del served[last]
    elif how == "broken off":
        broken.add(last)
    else:
        served[last] = gzip.compress(b"something else")
    fails(f"{tmp_path}: mnist cannot be downloaded into this folder", name="mnist", data_dir=tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []
    gc.collect()  # while the warning is ignored


def test_cifar_download(cifar, server, monkeypatch):
    name, data_dir, source, _ = cifar
    url, served, broken = server
    archive = pack(data_dir, source, monkeypatch)
    served[source.filename] = archive.read_bytes()
    archive.unlink()
    monkeypatch.setattr(source, "url", url + source.filename)
    broken.add(source.filename)
    fails(f"{data_dir}: {name} cannot be downloaded into this folder", name=name, data_dir=data_dir, download=True)
    assert list(data_dir.iterdir()) == []
    broken.clear()
    assert len(load(name, data_dir=data_dir, download=True).train) == 20
    assert len(load(name, data_dir=data_dir).test) == 6


def test_download_into_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    fails("cannot be downloaded into this folder", name="mnist", data_dir=tmp_path / "file", download=True)
    assert (tmp_path / "file").read_text() == "mine"


# ---- folders of images -------------------------------------------------------------------------------


def picture(path, rng, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 5), ("val", 2)):
        for i in range(n):
            picture(tmp_path / part / "n01" / f"{i}.png", rng)
            picture(tmp_path / part / "n02" / f"{i}.JPEG", rng, size=(25, 60))
    return tmp_path


@pytest.fixture
def imagenet(folder):
    meta = ({"n01": ("tench", "Tinca tinca"), "n02": ("goldfish",)}, ["n01", "n02"])
    torch.save(meta, folder / "meta.bin")
    return folder


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


# ---- arguments ---------------------------------------------------------------------------------------


def test_arguments_that_cannot_be_used():
    fails("data: 'cifar' is not known; did you mean 'cifar1", name="cifar")
    fails("image_size: 20 cannot be used, because the images of 'mnist' have one size", name="mnist", image_size=20)
    fails("image_size: 3 is too small", name="glyphs", image_size=3)
    for name in names()[len(BUILT_IN) :]:
        fails(f"data_dir: missing; '{name}' is read from ", name=name)


# ---- batches -----------------------------------------------------------------------------------------


def draw(count, generator):
    return torch.randint(0, 100, (count,), generator=generator, dtype=torch.uint8)


def small_split(n=23):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    shift = Augmentation(draw, lambda images, draws: images + draws.view(-1, 1, 1, 1))
    return ArraySplit(torch.arange(n), (0.0,), (1.0,), images, shift)


def equal(left, right):
    return all(
        torch.equal(a, b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("start", range(7))
def test_resumed_batches_are_bitwise_those_of_the_whole_epoch(start):
    whole = list(batches(small_split(), 4, seed=5, epoch=2))
    assert equal(batches(small_split(), 4, seed=5, epoch=2, start=start), whole[start:])


def test_resumed_batches_from_files(folder):
    split = load("imagefolder", data_dir=folder, image_size=8).train
    whole = list(batches(split, 3, seed=0, epoch=0))
    assert [len(y) for _, y in whole] == [3, 3, 3]  # the tenth image would be a batch of its own
    assert equal(batches(split, 3, seed=0, epoch=0, start=1), whole[1:])


def test_every_example_once_in_an_order_of_each_epoch_and_seed():
    orders = set()
    for seed in range(3):
        for epoch in range(3):
            targets = torch.cat([y for _, y in batches(small_split(), 4, seed=seed, epoch=epoch)])
            assert sorted(targets.tolist()) == list(range(23))
            orders.add(tuple(targets.tolist()))
    assert len(orders) == 9


def test_augmentation_differs_between_batches_and_epochs_and_can_be_switched_off():
    draws = set()
    for epoch in range(2):
        for x, y in batches(small_split(), 4, seed=0, epoch=epoch):
            draws.add(tuple((x.flatten() - y).tolist()))
        for x, y in batches(small_split(), 4, seed=0, epoch=epoch, augment=False):
            assert torch.equal(x.flatten(), y.float())
    assert len(draws) == 12


@pytest.mark.parametrize(
    ("n", "size", "sizes"), [(8, 4, [4, 4]), (9, 4, [4, 4]), (10, 4, [4, 4, 2]), (3, 9, [3]), (2, 1, [1, 1])]
)
def test_only_a_single_left_over_example_is_dropped(n, size, sizes):
    split = small_split(n)
    assert [len(y) for _, y in batches(split, size, seed=0, epoch=0)] == sizes
    assert batch_count(split, size) == len(sizes)
    assert torch.cat([y for _, y in evaluation_batches(split, size)]).tolist() == list(range(n))


def test_evaluation_is_never_augmented():
    x = torch.cat([x for x, _ in evaluation_batches(small_split(), 5)])
    assert x.flatten().tolist() == list(range(23))


def test_global_random_state_is_neither_read_nor_moved(folder):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    def run():
        out = [
            *batches(load("digits").train, 500, seed=0, epoch=0),
            *batches(small_split(), 4, seed=0, epoch=0),
        ]
        load("glyphs")
        split = load("imagefolder", data_dir=folder, image_size=8).train
        return out + list(batches(split, 4, seed=0, epoch=0))

    before = states()
    first = run()
    assert states() == before
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert equal(run(), first)


def test_batches_go_on_from_epoch_to_epoch():
    epochs = [batch for epoch in (2, 3) for batch in batches(small_split(), 4, seed=5, epoch=epoch)]
    assert equal(batches(small_split(), 4, seed=5, epoch=2, start=4, steps=7), epochs[4:11])


@pytest.mark.parametrize("world", [2, 3])
def test_a_process_takes_its_part_of_each_batch_as_it_is(folder, world):
    for split in (small_split(), load("imagefolder", data_dir=folder, image_size=8).train):
        whole = list(batches(split, 5, seed=1, epoch=2))
        for rank in range(world):
            parts = batches(split, 5, seed=1, epoch=2, part=lambda n, rank=rank: slice(rank, n, world))
            assert equal(parts, [(x[rank::world], y[rank::world]) for x, y in whole])


def test_a_part_without_an_example_has_no_batch():
    assert list(evaluation_batches(Part(torch.arange(0), (0.0,), (1.0,), small_split(), torch.arange(0)), 4)) == []


def test_processes_that_read_files_change_nothing(folder):
    split = load("imagefolder", data_dir=folder, image_size=8).train
    held = hold_out(load("imagefolder", data_dir=folder, image_size=8), 0.4)
    states = torch.get_rng_state(), random.getstate()
    alone = list(batches(split, 3, seed=3, epoch=1, steps=5))
    assert equal(batches(split, 3, seed=3, epoch=1, steps=5, workers=2), alone)
    assert equal(evaluation_batches(held.test, 3, workers=1), evaluation_batches(held.test, 3))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_an_image_that_another_process_cannot_read_is_named_in_one_line(folder):
    path = folder / "train" / "n01" / "3.png"
    path.write_bytes(b"not an image")
    split = load("imagefolder", data_dir=folder, image_size=8).train
    with pytest.raises(InputError, match=f"{path}: cannot be read; expected a whole image file") as caught:
        list(batches(split, 3, seed=0, epoch=0, workers=1))
    assert "\n" not in str(caught.value)


def test_a_reading_process_does_not_hold_the_run(folder, tmp_path):
    before, held = multiprocessing.active_children(), Hold(tmp_path)
    stream = batches(load("imagefolder", data_dir=folder, image_size=8).train, 3, seed=0, epoch=0, steps=9, workers=1)
    next(stream)
    (child,) = [child for child in multiprocessing.active_children() if child not in before]
    held.release()
    Hold(tmp_path).release()  # or it would say that another process is recording there
    stream.close()
    assert not child.is_alive()


def test_batches_refuse_numbers_out_of_range():
    split = small_split()
    for arguments, message in (
        ({"batch_size": 0}, "batch_size: 0"),
        ({"seed": -1}, "seed: -1 is negative"),
        ({"epoch": -1}, "epoch: -1 is negative"),
        ({"start": 7}, "start: 7 is not between 0 and the epoch's 6 batches"),
    ):
        with pytest.raises(InputError, match=message):
            batches(split, **{"batch_size": 4, "seed": 0, "epoch": 0, **arguments})
    with pytest.raises(InputError, match=r"1 training example\(s\) cannot fill a batch"):
        batches(small_split(1), 4, seed=0, epoch=0)
    with pytest.raises(InputError, match="batch_size: -3"):
        evaluation_batches(split, -3)
