"""The plugin for Ray, on a cluster of two nodes on this machine: a node that is killed costs nothing but time."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniature import captions, draw

import minclip
from minclip.commands.cli import main
from minclip.errors import SearchError
from minclip.search import shards

pytestmark = pytest.mark.ray
pyarrow = pytest.importorskip("pyarrow.parquet", reason="needs the extra ray")
ray = pytest.importorskip("ray", reason="needs the extra ray")
minclip_ray = pytest.importorskip("minclip_ray", reason="needs the extra ray")

ROUNDING = 1e-5  # batches of other sizes are summed in another order
COUNT = 24


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without cores and a node with one; tests add and kill others."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(72):
        caption = captions()[number % 12]
        draw(caption, np.random.default_rng(number), side=1500).save(folder / f"{number:02}.png")
    (folder / "20.png").write_bytes(b"no picture")
    return shards.entries([str(folder)])


def rows(folder: Path) -> list[tuple[dict[str, Any], np.ndarray]]:
    found = []
    for path in sorted((folder / "metadata").glob("*.parquet")):
        vectors = np.load(folder / "img_emb" / f"img_emb_{path.stem.removeprefix('metadata_')}.npy")
        found += list(zip(pyarrow.read_table(path).to_pylist(), vectors, strict=True))
    return found


def test_a_node_killed_in_the_middle_loses_nothing_and_makes_nothing_twice(
    cluster: Any, photos: list[str], miniature: Path, tmp_path: Path
) -> None:
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    reported: list[tuple[int, int, int]] = []
    unmade_when_killed: list[int] = []

    def report(number: int, pictures: int, broken: int) -> None:
        reported.append((number, pictures, broken))
        if unmade_when_killed:
            return
        free = ray._private.state.available_resources_per_node().get(second.node_id, {"CPU": 1})
        if not free.get("CPU"):  # an actor is at work there
            unmade_when_killed.append(COUNT - len(list((tmp_path / "ray" / "metadata").glob("*.parquet"))))
            cluster.remove_node(second, allow_graceful=False)

    minclip_ray.embed(photos, tmp_path / "ray", COUNT, source=str(miniature), batch_size=2, report=report)
    assert unmade_when_killed[0] > 4
    assert sorted(number for number, _, _ in reported) == list(range(COUNT))
    model = minclip.load(miniature)
    for shard in shards.blocks(photos, COUNT):
        shards.make(tmp_path / "alone", shard, model, batch_size=2)
    mine, expected = rows(tmp_path / "ray"), rows(tmp_path / "alone")
    assert sorted(row["image_path"] for row, _ in mine) == photos
    for (row, vector), (other, wanted) in zip(mine, expected, strict=True):
        assert row == other
        assert np.abs(vector - wanted).max() < ROUNDING
    assert not list((tmp_path / "ray").rglob("*.tmp"))


def test_a_run_that_was_cut_off_goes_on(cluster: Any, photos: list[str], miniature: Path, tmp_path: Path) -> None:
    done = shards.blocks(photos, COUNT)[3]
    shards.make(tmp_path / "ray", done, minclip.load(miniature))
    before = (tmp_path / "ray" / "metadata" / "metadata_3.parquet").stat().st_mtime_ns
    made: list[int] = []
    minclip_ray.embed(
        photos, tmp_path / "ray", COUNT, source=str(miniature), report=lambda number, *_: made.append(number)
    )
    assert sorted(made) == [number for number in range(COUNT) if number != 3]
    assert (tmp_path / "ray" / "metadata" / "metadata_3.parquet").stat().st_mtime_ns == before
    assert len(rows(tmp_path / "ray")) == 72


def test_a_model_that_no_machine_can_load_is_one_line(cluster: Any, photos: list[str], tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="nowhere") as caught:
        minclip_ray.embed(photos, tmp_path / "ray", COUNT, source=str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "parquet", "tars"])
def test_the_command_embeds_each_kind_of_source_as_one_process_does(
    kind: str, cluster: Any, photos: list[str], miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin-0.dist-info").mkdir()  # as an installation registers the plugin
    (tmp_path / "plugin-0.dist-info" / "entry_points.txt").write_text("[minclip.engines]\nray = minclip_ray:embed\n")
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / {"folder": "photos", "parquet": "list.parquet", "tars": "tars"}[kind]
    if kind == "parquet":
        table = shards.pyarrow()[0].table({"image_path": photos})
        pyarrow.write_table(table, source)
    elif kind == "tars":
        source.mkdir()
        for number in range(4):
            with tarfile.open(source / f"{number}.tar", "w") as tar:
                for path in photos[number::4]:
                    tar.add(path, Path(path).name)
    words = ["embed", str(source), "--model", str(miniature), "-o"]
    assert main([*words, str(tmp_path / "ray"), "--ray", "--shards", "4"]) == 1  # for 20.png is no picture
    assert main([*words, str(tmp_path / "alone"), "--shard", "0/1"]) == 1
    mine, expected = ({row["path"]: (row, vector) for row, vector in rows(tmp_path / at)} for at in ("ray", "alone"))
    assert len(rows(tmp_path / "ray")) == len(mine) == 72
    assert mine.keys() == expected.keys()
    assert [row["image_path"] for row, _ in mine.values() if row["error"]] == [
        next(row["image_path"] for row, _ in expected.values() if row["error"])
    ]
    for path, (row, vector) in mine.items():
        assert row == expected[path][0]
        assert np.abs(vector - expected[path][1]).max() < ROUNDING
