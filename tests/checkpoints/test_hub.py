"""Hub ids, through the real client, against a server on this machine that speaks the hub's routes."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import folders
import pytest
import torch

from minclip import checkpoints
from minclip.checkpoints import sources

pytest.importorskip("huggingface_hub")


class Hub:
    """A hub with some repositories: files by id and revision. `requests` is what was asked of it."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def add(self, name: str, folder: Path, revision: str = "main") -> None:
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repositories.setdefault(name, {})[revision] = files

    @staticmethod
    def commit(name: str, revision: str) -> str:
        return hashlib.sha1(f"{name} {revision}".encode()).hexdigest()

    def files(self, name: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision, by its name or its commit."""
        for known, files in self.repositories[name].items():
            if revision in (known, self.commit(name, known)):
                return files
        return None

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.requests.append(f"{request.command} {path}")
        model = re.match(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?$", path)
        file = re.match(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$", path)
        if not (match := model or file) or (name := match[1]) not in self.repositories:
            return self.fail(request, 404, "RepoNotFound")
        if name in self.gated:
            return self.fail(request, 403, "GatedRepo")
        revision = unquote((match[3] if model else match[2]) or "main")
        if (files := self.files(name, revision)) is None:
            return self.fail(request, 404, "RevisionNotFound")
        known = next(r for r in self.repositories[name] if revision in (r, self.commit(name, r)))
        commit = self.commit(name, known)
        if file:
            if file[3] not in files:
                return self.fail(request, 404, "EntryNotFound")
            content = files[file[3]]
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
            return self.send(request, 200, content, headers)
        if model[2] == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            return self.send(request, 200, json.dumps(entries).encode())
        info = {"id": name, "modelId": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]}
        return self.send(request, 200, json.dumps(info).encode())

    def fail(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        self.send(request, status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    @staticmethod
    def send(
        request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str] | None = None
    ) -> None:
        request.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    if hub.thread.is_alive():
        hub.stop()


Locate = Callable[..., Path]


@pytest.fixture
def locate(hub: Hub, tmp_path: Path) -> Locate:
    """`checkpoints.locate` in a process of its own, the client reading its settings when it is imported.

    Raises the error's message as a RuntimeError.
    """
    program = (
        "import sys\nfrom minclip import checkpoints, errors\n"
        "try:\n    print(checkpoints.locate(sys.argv[1]))\n"
        "except errors.MinclipError as error:\n    sys.exit(f'{type(error).__name__}: {error}')"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    clean = {key: value for key, value in clean.items() if not key.lower().endswith("_proxy")}
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }

    def run(source: str, **environment: str) -> Path:
        done = subprocess.run(
            [sys.executable, "-c", program, source],
            env={**clean, **settings, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return Path(done.stdout.strip())

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a model, and with what repositories on the hub hold besides."""
    folder = tmp_path / "model"
    folders.peer("CLIPModel").save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "sentencepiece.bpe.model").write_bytes(b"pieces")
    for unwanted in ("pytorch_model.bin", "flax_model.msgpack", "README.md", "onnx.safetensors", "onnx/model.onnx"):
        (folder / unwanted).parent.mkdir(exist_ok=True)
        (folder / unwanted).write_bytes(b"unwanted")
    return folder


WANTED = {"config.json", "model.safetensors", "tokenizer.json", "sentencepiece.bpe.model"}


def assert_refuses(locate: Locate, source: str, *words: str, **environment: str) -> None:
    """One line from minclip and nothing else."""
    with pytest.raises(RuntimeError) as caught:
        locate(source, **environment)
    message = str(caught.value)
    assert message.startswith(("CheckpointError: ", "ConfigError: "))
    assert "\n" not in message
    for word in (source.partition("@")[0], *words):
        assert word in message


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_hub_id_brings_config_tokenizer_and_weights_and_nothing_else(hub: Hub, locate: Locate, model: Path) -> None:
    hub.add("org/clip", model)
    folder = locate("org/clip")
    assert names(folder) == WANTED
    assert all((folder / name).read_bytes() == (model / name).read_bytes() for name in WANTED)


def test_a_second_time_nothing_is_downloaded(hub: Hub, locate: Locate, model: Path) -> None:
    hub.add("org/clip", model)
    folder = locate("org/clip")
    hub.requests.clear()
    assert locate("org/clip") == folder
    assert not [request for request in hub.requests if "/resolve/" in request]


def test_without_a_network_the_cache_serves(hub: Hub, locate: Locate, model: Path) -> None:
    hub.add("org/clip", model)
    folder = locate("org/clip")
    hub.stop()
    assert locate("org/clip") == folder
    assert names(folder) == WANTED


def test_offline_mode_asks_nobody(hub: Hub, locate: Locate, model: Path) -> None:
    hub.add("org/clip", model)
    folder = locate("org/clip")
    hub.requests.clear()
    assert locate("org/clip", HF_HUB_OFFLINE="1") == folder
    assert_refuses(locate, "org/other", "cannot be reached", HF_HUB_OFFLINE="1")
    assert hub.requests == []


def test_no_network_and_no_cache_is_one_line(hub: Hub, locate: Locate) -> None:
    hub.stop()
    assert_refuses(locate, "org/clip", "cannot be reached")


def test_a_cache_without_the_weights_is_one_line(hub: Hub, locate: Locate, model: Path) -> None:
    hub.add("org/clip", model)
    (locate("org/clip") / "model.safetensors").unlink()
    hub.stop()
    assert_refuses(locate, "org/clip", "cannot be reached", "does not hold all of it")


def test_an_unknown_id_is_one_line(locate: Locate) -> None:
    assert_refuses(locate, "org/clip", "the hub was asked", "no public model of that name", "check the path")


def test_a_gated_repository_is_one_line(hub: Hub, locate: Locate, model: Path) -> None:
    hub.add("org/clip", model)
    hub.gated.add("org/clip")
    assert_refuses(locate, "org/clip", "gated", "hf auth login")


def test_an_id_that_the_client_refuses_is_one_line(hub: Hub, locate: Locate) -> None:
    assert_refuses(locate, "org/a--b..c", "cannot be downloaded")
    assert hub.requests == []


def test_a_revision_is_fetched_when_asked_for(hub: Hub, locate: Locate, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    folders.peer("CLIPModel", seed=1).save_pretrained(other)
    hub.add("org/clip", model)
    hub.add("org/clip", other, "refs/pr/2")
    found = [locate(f"org/clip{revision}") for revision in ("", "@refs/pr/2")]
    assert [(folder / "model.safetensors").read_bytes() for folder in found] == [
        (folder / "model.safetensors").read_bytes() for folder in (model, other)
    ]
    assert_refuses(locate, "org/clip@v3", "no revision 'v3'")


def test_a_torch_file_is_fetched_where_there_is_nothing_better(hub: Hub, locate: Locate, model: Path) -> None:
    """As CLIP's and AltCLIP's repositories are: pickled weights, files of other frameworks, and often the original."""
    peer = folders.peer("CLIPModel")
    (model / "model.safetensors").unlink()
    torch.save(peer.state_dict(), model / "pytorch_model.bin")
    (model / "metaclip_original.bin").write_bytes(b"unwanted")
    hub.add("org/clip", model)
    folder = locate("org/clip")
    assert names(folder) == WANTED - {"model.safetensors"} | {"pytorch_model.bin"}
    folders.assert_equal(checkpoints.read(folder)[1], folders.tensors(peer))


def test_safetensors_are_fetched_before_torch_files(hub: Hub, locate: Locate, model: Path, tmp_path: Path) -> None:
    """Shards, too, and beside their index no file of the torch kind."""
    folders.peer("CLIPModel").save_pretrained(tmp_path / "shards", max_shard_size="16KB")
    for name in ("pytorch_model.bin", "open_clip_pytorch_model.bin", "training_args.bin", "ViT-B-32.pt"):
        (tmp_path / "shards" / name).write_bytes(b"unwanted")
    hub.add("org/clip", tmp_path / "shards")
    found = names(locate("org/clip"))
    assert "model.safetensors.index.json" in found
    assert not [name for name in found if name.endswith((".bin", ".pt"))]


def test_torch_shards_are_fetched(hub: Hub, locate: Locate, tmp_path: Path) -> None:
    model = folders.peer("CLIPModel")
    model.save_pretrained(tmp_path / "shards")
    (tmp_path / "shards" / "model.safetensors").unlink()
    folders.save_torch_shards(tmp_path / "shards", model)
    hub.add("org/clip", tmp_path / "shards")
    folder = locate("org/clip")
    assert names(folder) == names(tmp_path / "shards")
    folders.assert_equal(checkpoints.read(folder)[1], folders.tensors(model))


@pytest.mark.parametrize(
    "source", ["hf-hub:org/clip", "org/clip/", "https://huggingface.co/org/clip", "https://hf.co/org/clip/tree/v2"]
)
def test_a_model_on_the_hub_has_many_spellings(hub: Hub, locate: Locate, model: Path, source: str) -> None:
    hub.add("org/clip", model)
    hub.add("org/clip", model, "v2")
    folder = locate(source)
    assert names(folder) == WANTED
    assert folder.name == hub.commit("org/clip", "v2" if source.endswith("v2") else "main")


@pytest.mark.parametrize(("name", "repository"), sources.OPENAI.items())
def test_a_name_of_openai_is_a_model_on_the_hub(
    hub: Hub, locate: Locate, model: Path, name: str, repository: str
) -> None:
    hub.add(repository, model)
    assert names(locate(name)) == WANTED


def test_a_repository_without_weights_is_one_line(hub: Hub, locate: Locate, model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").unlink()
    (model / "onnx.safetensors").unlink()
    hub.add("org/clip", model)
    assert_refuses(locate, "org/clip", "on the hub has no weights")


def test_shards_are_fetched(hub: Hub, locate: Locate, tmp_path: Path) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path / "shards", max_shard_size="16KB")
    hub.add("org/clip", tmp_path / "shards")
    assert names(locate("org/clip")) == names(tmp_path / "shards")


def test_an_open_clip_repository_brings_open_clip_weights_only(hub: Hub, locate: Locate, model: Path) -> None:
    """Like the hub's timm repositories, whose model.safetensors is the vision tower a second time."""
    folders.save_open_clip(model, folders.OPEN_CLIP_MODEL, folders.peer("CLIPModel"))
    (model / "config.json").write_text('{"architecture": "vit_tiny"}')
    hub.add("timm/clip", model)
    wanted = WANTED - {"model.safetensors"} | {"open_clip_config.json", "open_clip_model.safetensors"}
    assert names(locate("timm/clip")) == wanted


def test_a_model_of_another_kind_is_refused_before_its_weights_come(hub: Hub, locate: Locate, model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "bert"}')
    hub.add("org/bert", model)
    with pytest.raises(RuntimeError, match=r"^ConfigError: .*config\.json: model_type is 'bert'; minclip knows clip"):
        locate("org/bert")
    assert not [request for request in hub.requests if "model.safetensors" in request]


def test_a_server_that_fails_at_the_weights_leaves_no_half_model(hub: Hub, locate: Locate, model: Path) -> None:
    hub.add("org/clip", model)
    whole = hub.send

    def broken(request: BaseHTTPRequestHandler, status: int, *answer: Any) -> None:
        weights = request.command == "GET" and request.path.endswith("model.safetensors")
        whole(request, 500 if weights else status, *answer)

    hub.send = broken  # type: ignore[method-assign]
    assert_refuses(locate, "org/clip", "cannot be downloaded")
    hub.send = whole  # type: ignore[method-assign]
    assert names(locate("org/clip")) == WANTED
