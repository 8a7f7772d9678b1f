"""Downloads from a server on this machine: whole, broken off and wrong."""

import gc
import gzip
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torchvision import datasets

from tests.trainers.data.data_files import fails, files_in, md5, mnist_files, pack
from wtdiag.trainers.data import load


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
