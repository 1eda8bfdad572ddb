"""Verification of a store: every file, every checksum, every sample, and the labels.

The order matters: cheap and bounded checks come first, and nothing is allocated on the word of a file. The first
damage ends the check, with the file, shard or sample in the message; then every file is hashed, so that all files to
be fetched again can be named.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from driftcal.shared.disk import limits, litter
from driftcal.shared.errors import LimitError, StoreError
from driftcal.shared.store import files as store_files
from driftcal.shared.store import manifest, schema, shard_bytes
from driftcal.shared.store.manifest import Manifest
from driftcal.shared.store.reader import ShardStore, rows_of
from driftcal.shared.text import counted

REMEDY = manifest.REMEDY
"""Remedy for a damaged store; `shard_bytes.REMEDY` refers the reader here."""

WORKERS = 4  # shards checked at a time; more would not make a disk faster
YEARS_1950_2150 = (-631_152_000, 5_680_281_600)
"""Seconds since 1970 between which a drifter can have been seen: a wrong unit or epoch falls outside."""

MOST_LITTER = 10
"""Kinds of files left behind by systems that are named."""

SLACK = 1e-3
"""Tolerance of positions against their window [degrees]: float32 positions and grids of float32 axes."""


@dataclass(frozen=True)
class Verdict:
    """The result of verifying a store: `files` and `samples` were intact, up to the first `problem`.

    If there is one, `damaged` are all listed files that are missing or contradict the manifest, and `unread` those that
    could not be checked.
    """

    ok: bool
    problem: str | None
    files: int
    samples: int
    notes: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """This verdict as JSON."""
        return asdict(self)


def verify(store: str | Path, progress: bool = False) -> Verdict:
    """Checks everything about `store`; damage makes the verdict, never an exception.

    Raises:
        LimitError: the system refuses or fails to read something, before any damage.
    """
    root = Path(store)
    files, samples, notes, listing = 0, 0, (), None
    try:
        listing = checked_words(manifest.read(root))
        if (root / manifest.NAME).read_bytes() != manifest.to_bytes(listing.as_json()):
            raise StoreError(f"{root / manifest.NAME}: says more, or otherwise, than its digest covers. {REMEDY}")
        specs = schema.arrays(listing.layout)
        notes = _check_listing(root, listing)
        small = [name for name in listing.files if not any(name.startswith(f"{s.name}/c/") for s in specs if s.sharded)]
        for name in small:
            store_files.checked(root, name, listing)
        files = len(small)
        opened = ShardStore(root)
        _check_labels(opened)
        _check_counts(opened)
        for count in _check_samples(opened, progress):
            files, samples = files + 2, samples + count
    except StoreError as error:
        problem = str(error).replace(shard_bytes.REMEDY, REMEDY)
    except OSError as error:
        where = f"cannot read {error.filename or root}"
        if limits.concerns(error):
            raise limits.refused(where, error, "the store") from error
        problem = f"{where}: {error.strerror}. {REMEDY}"
    else:
        return Verdict(True, None, files, samples, notes)
    return Verdict(False, problem, files, samples, notes, *(((), ()) if listing is None else _damaged(root, listing)))


def _damaged(root: Path, listing: Manifest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The listed files that are missing or contradict the manifest, and those that cannot be read; all are tried."""

    def whole(name: str) -> bool | None:
        try:
            store_files.check_digest(root, name, listing, store_files.sha256(root, name, listing))
        except StoreError:
            return False
        except LimitError:
            return None
        return True

    with ThreadPoolExecutor(WORKERS) as pool:
        good = dict(zip(listing.files, pool.map(whole, listing.files), strict=True))
    damaged, unread = ([name for name, outcome in good.items() if outcome is sort] for sort in (False, None))
    return tuple(damaged), tuple(unread)


def checked_words(listing: Manifest) -> Manifest:
    """Returns the manifest, once its names and counts have the types that they should have.

    Raises:
        StoreError: one is not.
    """

    def counts(tree: Any) -> bool:
        return isinstance(tree, dict) and all(isinstance(v, int) and v >= 0 for v in tree.values())

    def refuse(unless: bool, item: str) -> None:
        if not unless:
            raise StoreError(f"{manifest.NAME}: {item} is not what this schema has there: damaged. {REMEDY}")

    refuse(isinstance(listing.name, str) and isinstance(listing.driftcal_version, str), "name or driftcal_version")
    refuse(all(isinstance(note, str) for note in listing.notes), "notes")
    refuse(isinstance(listing.recipe, dict), "recipe")
    check_sources(listing.sources, manifest.NAME)
    for entry in listing.files.values():
        refuse(isinstance(entry.size, int) and isinstance(entry.sha256, str), "files")
    for stage in listing.funnel:
        words = isinstance(stage.name, str) and isinstance(stage.unit, str)
        refuse(words and counts({"kept": stage.kept}) and counts(stage.dropped), "funnel")
    refuse(isinstance(listing.splits, dict) and set(listing.splits) <= set(schema.SPLITS), "splits")
    for split in listing.splits.values():
        refuse(counts(split) and set(split) == {"samples", "drifters"}, "splits")
    return listing


def check_sources(sources: Any, where: str | Path) -> None:
    """Refuses `sources`, read from the file `where`, that are not lists of fingerprints by kind.

    Raises:
        StoreError: they are not.
    """

    def right(source: Any) -> bool:
        if not isinstance(source, dict) or not isinstance(source.get("path"), str):
            return False
        return all(isinstance(source.get(k), int) and source[k] >= 0 for k in ("files", "bytes"))

    lists = list(sources.values()) if isinstance(sources, dict) else [None]
    if not all(isinstance(listed, list) and all(right(source) for source in listed) for listed in lists):
        raise StoreError(f"{where}: sources is not what this schema has there: damaged. {REMEDY}")


def _check_listing(root: Path, listing: Manifest) -> tuple[str, ...]:
    """Refuses missing, foreign and linked files and other sizes; returns notes."""
    if not listing.layout.n_samples:
        raise StoreError(f"{root}: holds no sample. Make it again from drifters and currents that overlap.")
    store_files.check_listing(root, listing)
    building, present, left = 0, set(), []
    for path, litters in litter.walk(root):
        name = path.relative_to(root).as_posix()
        if name.split("/")[0] == manifest.STAGING:
            building += 1
        elif litters and name not in listing.files:
            left.append(name)
        elif path.is_symlink():
            raise StoreError(f"{path}: a link, which may lead out of the store. Put the file itself there.")
        elif name in listing.files:
            present.add(name)
            size, due = path.stat().st_size, listing.files[name].size
            if size != due:
                raise store_files.wrong_size(path, size, due)
        elif name != manifest.NAME:
            raise StoreError(f"{path}: a file that the manifest does not list. Delete it, if you know what it is.")
    for name in listing.files:
        if name not in present:
            raise StoreError(f"{root / name}: missing. {REMEDY}")
    notes = []
    if building:
        files = counted(building, "file")
        notes.append(f"{root / manifest.STAGING} is left over from the making ({files}); it can be deleted.")
    if left:
        kinds = Counter(name.rpartition("/")[2] for name in left)
        named = ", ".join(f"{kind} ({n})" if n > 1 else kind for kind, n in kinds.most_common(MOST_LITTER))
        more = f" and {len(kinds) - MOST_LITTER} more" if len(kinds) > MOST_LITTER else ""
        notes.append(f"left behind by the system, and looked at by no reader: {named}{more}.")
    return tuple(notes)


def _check_labels(opened: ShardStore) -> None:
    """Refuses labels outside their ranges. Conditions describe the right values, so that NaN fails them."""
    label, layout = opened.labels, opened.layout
    step = np.array([layout.lon_step, layout.lat_step])
    extent = step * [layout.n_lon - 1, layout.n_lat - 1]
    origin, corner = label["origin"], label["window_corner"]
    start, first = label["start_time"], label["window_time"]
    duration = (layout.n_obs - 1) * layout.obs_step
    reach = (layout.n_times - 1) * layout.time_step
    sources = opened.manifest.sources.get("drifters")
    n_sources = len(sources) if isinstance(sources, list) else 1

    def need(right: np.ndarray, name: str, expected: str) -> None:
        mismatches = np.flatnonzero(~(right if right.ndim == 1 else right.all(axis=1)))
        if len(mismatches):
            sample = int(mismatches[0])
            where = f"{name} of sample {sample} (shard {sample // layout.samples_per_shard}) of {opened.root}"
            raise StoreError(f"{where}: {label[name][sample].tolist()}, expected {expected}. {REMEDY}")

    seen = "seconds since 1970 between 1950 and 2150"
    need(np.isin(label["status"], range(len(schema.STATUS))), "status", f"a code of 0 to {len(schema.STATUS) - 1}")
    need(np.isin(label["drogue"], list(schema.DROGUE.values())), "drogue", "-1, 0 or 1")
    need(np.isin(label["split"], range(-1, len(schema.SPLITS))), "split", f"-1 to {len(schema.SPLITS) - 1}")
    need((label["split"] >= 0) == (label["status"] == 0), "split", "-1 where status is not 0, and only there")
    need((label["source"] >= 0) & (label["source"] < n_sources), "source", f"0 to {n_sources - 1}")
    need(label["source_row"] >= 0, "source_row", "at least 0")
    need((start >= YEARS_1950_2150[0]) & (start < YEARS_1950_2150[1]), "start_time", seen)
    need((first >= YEARS_1950_2150[0]) & (first < YEARS_1950_2150[1]), "window_time", seen)
    need((first <= start) & (start + duration <= first + reach), "window_time", "a window around the segment")
    need((origin[:, 0] >= -180) & (origin[:, 0] < 180), "origin", "a longitude in [-180, 180)")
    need(np.abs(origin[:, 1]) <= 90, "origin", "a latitude in [-90, 90]")
    need(
        (corner <= origin + SLACK) & (origin <= corner + extent + SLACK),
        "window_corner",
        "the first fix inside the window, on the same turn of longitude",
    )


def _check_counts(opened: ShardStore) -> None:
    """Refuses a manifest whose splits or funnel count samples differently from the labels."""
    listing, label = opened.manifest, opened.labels
    for code, name in enumerate(schema.SPLITS):
        of_split = label["split"] == code
        counts = {"samples": int(of_split.sum()), "drifters": len(np.unique(label["drifter"][of_split]))}
        listed = listing.splits.get(name, {"samples": 0, "drifters": 0})
        if counts != listed:
            raise StoreError(f"{opened.root}: split {name} holds {counts}, its manifest says {listed}. {REMEDY}")
    if not listing.funnel:
        return
    status = np.bincount(label["status"], minlength=len(schema.STATUS)).tolist()
    dropped = {status_name: n for status_name, n in zip(schema.STATUS[1:], status[1:], strict=True) if n}
    last = listing.funnel[-1]
    if (last.kept, last.dropped) != (status[0], dropped):
        ends = f"its funnel ends with {last.kept} and {last.dropped}"
        raise StoreError(f"{opened.root}: {status[0]} samples usable, not usable {dropped}; {ends}. {REMEDY}")


def _check_samples(opened: ShardStore, progress: bool) -> Iterator[int]:
    """Checks both files of every shard that hold the samples themselves; yields how many samples were found whole."""
    layout = opened.layout
    pool = ThreadPoolExecutor(WORKERS)
    bar = tqdm(total=layout.n_shards, unit="shard", desc="verify", disable=not progress)
    try:
        for count in pool.map(lambda shard: _check_shard(opened, shard), range(layout.n_shards)):
            bar.update()
            yield count
    finally:
        bar.close()
        pool.shutdown(cancel_futures=True)


def _check_shard(opened: ShardStore, shard: int) -> int:
    """Hashes the files of `shard` and decodes every sample; damage to a sample is reported with its number."""
    samples = opened.layout.samples_of(shard)
    for array in (opened.currents, opened.positions):
        spec, name = array.spec, array.spec.file_of(shard)
        digest = store_files.sha256(opened.root, name, opened.manifest)
        out = np.empty((1, *spec.inner_shape), spec.dtype)
        for sample in samples:
            array.read_into([sample], rows_of(out))
            where = f"{spec.name} of sample {sample} (shard {shard}) of {opened.root}"
            _check_values(spec.name, out[0], opened, sample, where)
        store_files.check_digest(opened.root, name, opened.manifest, digest)
    return len(samples)


def _check_values(name: str, out: np.ndarray, opened: ShardStore, sample: int, where: str) -> None:
    if name == "currents":
        if not (out == schema.OVER).any():
            return
        raise StoreError(f"{where}: holds {schema.OVER}, the code of a current too fast for int16. {REMEDY}")
    if not np.isfinite(out).all():
        raise StoreError(f"{where}: holds a position that is not a number. {REMEDY}")
    layout = opened.layout
    if np.abs(out[0]).max() > SLACK:
        raise StoreError(f"{where}: the first fix is {out[0].tolist()} degrees from the origin, expected 0. {REMEDY}")
    corner = opened.labels["window_corner"][sample] - opened.labels["origin"][sample]
    extent = [(layout.n_lon - 1) * layout.lon_step, (layout.n_lat - 1) * layout.lat_step]
    if (out < corner - SLACK).any() or (out > corner + extent + SLACK).any():
        raise StoreError(f"{where}: the track leaves its window. {REMEDY}")
