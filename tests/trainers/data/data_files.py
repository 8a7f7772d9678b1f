"""Small data sets in their true formats, and how a failure to load one is checked."""

import hashlib
import pickle
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from wtdiag.probes.errors import InputError
from wtdiag.trainers.data import load


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def fails(message, **arguments):
    with pytest.raises(InputError, match=message) as caught:
        load(**arguments)
    assert "\n" not in str(caught.value)


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_files(rng, train=7, test=3):
    files = {}
    for part, n in (("train", train), ("t10k", test)):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx(np.arange(n, dtype=np.uint8) % 10)
    return files


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


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("an unverified pickle was read",))


def picture(path, rng, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
