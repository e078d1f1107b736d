"""Embeddings in files, for more pictures than one machine embeds: the layout that clip-retrieval reads and writes.

    img_emb/img_emb_7.npy         (n, width) float32, unit vectors; zeros for a picture that cannot be read
    metadata/metadata_7.parquet   the same n pictures: image_path; error, why it cannot be read, else null; and what an
                                  index remembers: path (bytes), size, mtime, hash. The file's metadata name the model

Shard i of n is the i-th of n blocks of the entries (pictures, or WebDataset tars of pictures): any scheduler may have
any of them made anywhere. It is there when its metadata are, which take their place last; then it is not made again.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minclip.errors import SearchError
from minclip.files import one_line, replacing_together
from minclip.images import image_suffixes, pictures_below
from minclip.model import Model
from minclip.pipeline import Progress, ahead, default_workers
from minclip.search.build import embed, facts_of, hashed, stated
from minclip.search.store import Picture, Store, discard, one_writer, printable

STEP = 1024  # pictures that are embedded at a time
EXPORTED = 1_000_000  # pictures in a shard of `export_index`


class Shard(NamedTuple):
    """Which of how many, and what is in it: paths of pictures and of tars. draft: as for `Model.encode_image`."""

    number: int
    of: int
    entries: Sequence[str]
    draft: bool = False


def pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises SearchError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SearchError("shards hold Parquet files, which need pyarrow: pip install minclip[parquet]") from None
    return pyarrow, pyarrow.parquet


# --- what there is to embed ----------------------------------------------------------------------------------------


def entries(sources: Sequence[str]) -> list[str]:
    """The pictures and tars that are named, lie below folders that are, or stand in a Parquet file's image_path.

    Raises SearchError for an address, and for a Parquet file or a folder that cannot be read, at any depth: all
    machines must see the same.
    """
    found: list[str] = []

    def stop(error: OSError) -> None:
        raise SearchError(f"{error.filename} cannot be read: {error.strerror}; so what is below it would be missing")

    for source in sources:
        if os.path.isdir(source):
            inside = pictures_below(os.path.abspath(source), stop, also=(".tar",))
            if not inside:
                raise SearchError(f"{source} holds no picture files and no tars; name a folder that has some")
            found += inside
        elif source.lower().endswith(".parquet"):
            try:
                found += pyarrow()[1].read_table(source, columns=["image_path"])["image_path"].to_pylist()
            except (OSError, ValueError, KeyError) as error:
                raise SearchError(f"{source} cannot be read for its column image_path: {one_line(error)}") from None
        else:
            if "://" in source:
                raise SearchError(f"{source} is an address, and shards are of files; download it, or leave out --shard")
            found.append(os.path.abspath(source))
    return list(dict.fromkeys(found))


def blocks(found: Sequence[str], count: int, *, draft: bool = False) -> list[Shard]:
    """Count shards of nearly equal length. Raises SearchError where there are fewer entries."""
    if not 1 <= count <= len(found):
        raise SearchError(f"{len(found)} pictures or tars cannot make {count} shards; make 1 to {len(found)}")
    ends = [len(found) * number // count for number in range(count + 1)]
    return [Shard(number, count, found[ends[number] : ends[number + 1]], draft) for number in range(count)]


def pictures_in(entry: str) -> Iterator[Picture]:
    """The picture at a path, or those of a tar with their content, named `tar/member`."""
    if not entry.lower().endswith(".tar"):
        yield stated(entry)
        return
    endings = tuple(image_suffixes())
    try:
        with tarfile.open(entry, "r|") as tar:  # one way through, without an index of its members
            for member in tar:
                content = tar.extractfile(member) if member.name.lower().endswith(endings) else None
                if content is not None:
                    path, mtime = f"{entry}/{member.name}", int(member.mtime * 10**9)
                    yield Picture(path, member.size, mtime, content=content.read())
    except (OSError, tarfile.TarError) as error:
        yield Picture(entry, error=f"{entry} cannot be read to its end: {one_line(error)}")


# --- making a shard ------------------------------------------------------------------------------------------------


def is_made(folder: Path, shard: Shard) -> bool:
    """Whether a shard is there. Raises SearchError where it was made of other entries or with another draft."""
    path = folder / "metadata" / f"metadata_{shard.number}.parquet"
    if not path.is_file():
        return False
    found = read_facts(path)
    if ("draft" in found) != shard.draft:
        made = "with" if "draft" in found else "without"
        raise SearchError(f"{path} was made {made} draft; go on {made} it, or name a new folder")
    if found.get("entries") != digest(shard):
        raise SearchError(f"{path} was made of other pictures, or as one of another number; name a new folder")
    return True


def digest(shard: Shard) -> str:
    return hashlib.sha256("\0".join([str(shard.of), *shard.entries]).encode("utf-8", "surrogateescape")).hexdigest()


def make(folder: Path, shard: Shard, model: Model, *, batch_size: int = 32) -> tuple[int, int]:
    """Embed a shard's pictures and write it, whole or not at all. How many pictures it has, and how many are broken."""
    pyarrow()
    pictures: list[Picture] = []
    rows: list[np.ndarray] = []
    found = (picture for entry in shard.entries for picture in pictures_in(entry))
    with closing(ahead(hashed, found, workers=default_workers(), depth=4 * batch_size)) as source:
        while step := list(islice(source, STEP)):
            fine = [picture for picture in step if not picture.error]
            embeds = embed(model, fine, batch_size=batch_size, draft=shard.draft)
            vectors = np.zeros((len(step), embeds.shape[1]), np.float32)
            vectors[[not picture.error for picture in step]] = embeds
            rows.append(vectors)
            pictures += [replace(picture, content=None) for picture in step]
    facts = facts_of(model, shard.draft) | {"entries": digest(shard)}
    write(folder, shard.number, np.concatenate(rows), pictures, facts)
    return len(pictures), sum(bool(picture.error) for picture in pictures)


def write(
    folder: Path, number: int, vectors: np.ndarray, pictures: Sequence[Picture], facts: Mapping[str, str]
) -> None:
    """The two files of a shard, the metadata last."""
    arrow, parquet = pyarrow()
    columns = {name: [getattr(picture, name) for picture in pictures] for name in ("size", "mtime", "hash")}
    columns["image_path"] = [printable(picture.path) for picture in pictures]
    columns["path"] = [os.fsencode(picture.path) for picture in pictures]
    columns["error"] = [picture.error or None for picture in pictures]
    facts = {**facts, "vectors": hash_of(vectors, facts)}
    table = arrow.table(columns, schema()).replace_schema_metadata({f"minclip.{n}": f for n, f in facts.items()})
    try:
        for kind in ("img_emb", "metadata"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        with replacing_together() as begin:
            np.save(begin(folder / "img_emb" / f"img_emb_{number}.npy"), vectors)
            metadata = begin(folder / "metadata" / f"metadata_{number}.parquet")
            parquet.write_table(table, metadata, write_page_checksum=True)
    except OSError as error:
        raise SearchError(f"{folder} cannot be written: {error.strerror or error}") from None


# --- to and from an index ------------------------------------------------------------------------------------------


def read_facts(path: Path) -> dict[str, str]:
    """ "model", "fingerprint", "entries", "vectors", and "draft" where it is, of a shard's metadata file."""
    with damaged(path):
        metadata = pyarrow()[1].read_schema(path).metadata or {}
        return {name.decode().removeprefix("minclip."): value.decode() for name, value in metadata.items()}


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Whatever a reader raises, as one line that names the file."""
    try:
        yield
    except SearchError:
        raise
    except Exception as error:
        reason = one_line(error)[:200] or type(error).__name__
        raise SearchError(f"{path} cannot be read: {reason}; delete it and make the shard again") from None


def schema() -> Any:
    """The columns of the metadata. Only `error` may be null."""
    arrow = pyarrow()[0]
    text, raw, number = arrow.string(), arrow.binary(), arrow.int64()
    types = {"image_path": text, "error": text, "path": raw, "size": number, "mtime": number, "hash": raw}
    return arrow.schema([arrow.field(name, kind, nullable=name == "error") for name, kind in types.items()])


def hash_of(vectors: np.ndarray, facts: Mapping[str, str]) -> str:
    """Of the numbers, their type and how many they are, and of the facts about them."""
    stated = sorted(item for item in facts.items() if item[0] != "vectors")
    found = hashlib.sha256(f"{vectors.dtype.str} {vectors.shape} {stated}".encode("utf-8", "surrogateescape"))
    found.update(np.ascontiguousarray(vectors).data)
    return found.hexdigest()


def read_shard(folder: Path, path: Path, facts: Mapping[str, str]) -> tuple[np.ndarray, list[Picture]]:
    """The vectors (n, width) of a shard and its n pictures. Raises SearchError where they are not what was written."""
    beside = folder / "img_emb" / f"img_emb_{path.stem.removeprefix('metadata_')}.npy"
    with damaged(path):
        table = pyarrow()[1].read_table(path, page_checksum_verification=True)
        if not table.schema.equals(schema()):
            raise ValueError("its columns are not the ones of a shard")
        table.validate(full=True)
        rows = table.drop_columns("image_path").to_pylist()
    with damaged(beside):
        vectors = np.load(beside, mmap_mode="r")
    if facts.get("vectors") != hash_of(vectors, facts) or len(vectors) != len(rows):
        raise SearchError(f"{beside} does not hold the vectors of {path}; delete both and make the shard again")
    return vectors, [Picture(**row | {"path": os.fsdecode(row["path"]), "error": row["error"] or ""}) for row in rows]


def index_shards(folder: Path, target: Path, *, progress: bool = False) -> int:
    """Put the pictures of all shards in `folder` into the index at `target`, made where there is none; how many.

    Raises SearchError where the shards are not those of one model, and where no picture of theirs could be read.
    """
    paths = sorted((folder / "metadata").glob("metadata_*.parquet"), key=lambda path: (len(path.name), path.name))
    if not paths:
        raise SearchError(f"{folder} holds no shards; make some with minclip embed SOURCE -o {folder} --shard 0/1")
    total, bar = 0, Progress("shards", len(paths), show=progress)
    with one_writer(target):
        for path in paths:
            facts = read_facts(path)
            if not facts.keys() >= {"model", "fingerprint"}:
                raise SearchError(f"{path} does not tell which model it is of, so it is none of minclip's")
            vectors, pictures = read_shard(folder, path, facts)
            fine = [picture for picture in pictures if not picture.error]
            if not fine:
                continue
            if not Store.begun(target):
                known = {name: fact for name, fact in facts.items() if name in ("model", "fingerprint", "draft")}
                Store.create(target, known | {"width": str(vectors.shape[1])}).close()
            with closing(Store(target)) as store:
                if facts["fingerprint"] != store.facts["fingerprint"]:
                    raise SearchError(f"{path} is of {facts['model']}, {target} of {store.facts['model']}: two models")
                if ("draft" in facts) != store.draft:
                    raise SearchError(f"of {path} and {target} only one was made with draft; index to another place")
                place = {picture.hash: index for index, picture in enumerate(pictures)}
                store.record(fine, lambda new: vectors[[place[p.hash] for p in new]])  # noqa: B023
                total += len(fine)
            bar.advance(1)
        if not Store.begun(target):
            discard(target)
            raise SearchError(f"no picture of the shards in {folder} could be read, so {target} was not written")
    return total


def export_index(store: Store, folder: Path) -> int:
    """Write an index as shards. How many."""
    pictures, number = store.pictures(), 0
    facts = {name: fact for name, fact in store.facts.items() if name != "width"} | {"entries": ""}
    while part := list(islice(pictures, EXPORTED)):
        write(folder, number, store.vectors()[[picture.row for picture in part]], part, facts)
        number += 1
    return number
