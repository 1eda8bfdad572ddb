"""Executes a plan: begins or continues a store, has its shards written, then the manifest, which comes last.

Running again skips the shards that are marked as done.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from driftcal.preprocess.drift import advice
from driftcal.preprocess.sources.gridded.remarks import Odd
from driftcal.preprocess.writing import cluster, store_metadata
from driftcal.preprocess.writing.build import Build
from driftcal.preprocess.writing.shard_task import odd_of, run
from driftcal.shared import command
from driftcal.shared.disk import claims, durable, limits, litter
from driftcal.shared.disk.claims import Lock
from driftcal.shared.errors import ConfigError, StoreError
from driftcal.shared.store import files as store_files
from driftcal.shared.store import manifest, schema, unfinished
from driftcal.shared.store.manifest import FileEntry
from driftcal.shared.store.unfinished import Begun, Mark


@dataclass(frozen=True)
class Writing:
    """The making of a store by this process, which holds the claim to it.

    Attributes:
        build: The store that is made.
        lock: The right to write the shards of a part.
    """

    build: Build
    lock: Lock

    @property
    def store(self) -> Path:
        """Folder of the store."""
        return self.build.store

    def clear(self) -> None:
        """Deletes the content of the store, its manifest and its plan first.

        Raises:
            StoreError: it cannot be deleted.
        """
        with self.lock.gate():
            durable.remove(self.store / manifest.NAME)
            durable.remove(unfinished.plan_of(self.store))
            self.lock.clean()
            for path in self.store.iterdir():
                if path.name != manifest.STAGING and not litter.is_litter(path):
                    durable.remove(path)

    def write(self, share: tuple[int, int], scheduler: str, workers: int | None, progress: bool) -> bool:
        """Writes the k-th of N shares of the shards, and the manifest once every shard is there: then True.

        Raises:
            ConfigError: the store was begun, or finished, from something else.
            DriftcalError: a shard cannot be made.
        """
        try:
            with self.lock.gate():
                if self._is_finished():
                    command.say(f"{self.store} is finished already: nothing to do.")
                    self.lock.clean()
                    return True
                self._open()
            self._write(share, scheduler, workers, progress)
        except StoreError:
            if self._is_finished():
                return True  # another process finished it meanwhile, and took away what this one needed
            raise
        with self.lock.gate():
            if self._is_finished():
                return True
            gathered = self._gather()
            if gathered is None and share[1] > 1:
                return False
            claims.check(self.lock.file)
            if gathered is None:
                raise StoreError(
                    f"{self.store}: a shard that was marked as done is so no more: its mark or a file of it is gone or "
                    f"damaged. Check the disk, and run the same command again: it makes that shard again."
                )
            self._finish(gathered)
        return True

    def _write(self, share: tuple[int, int], scheduler: str, workers: int | None, progress: bool) -> None:
        """Writes the shards of `write` that are not done."""
        k, n = share
        shards = range(self.build.plan.layout.n_shards)[k - 1 :: n]
        pending = [shard for shard in shards if not self._done(shard)]
        if len(pending) < len(shards):
            command.say(f"continuing: {len(shards) - len(pending)} of {len(shards)} shards are done.")
        together = scheduler in ("threads", "synchronous")
        tasks = self.build.pending(pending, self.lock.file, together)
        if scheduler.startswith(cluster.ADDRESSES):
            cluster.run(tasks, scheduler, progress)
        else:
            run(tasks, scheduler, workers, progress)

    def _done(self, shard: int) -> Mark | None:
        """The mark of `shard`; None if there is none, or none to be trusted, which is reported."""
        if not durable.there(unfinished.mark_of(self.store, shard)):
            return None
        try:
            return unfinished.read_mark(self.store, self.build.plan.layout, shard)
        except StoreError as error:
            command.say(str(error))
            return None

    def _gather(self) -> "_Gathered | None":
        """Sum of all marks; None if a shard is not done. Called at the gate, so each is read once."""
        gathered = _Gathered({}, Counter(), Counter(), {name: set() for name in schema.SPLITS}, {})
        for shard in range(self.build.plan.layout.n_shards):
            mark = self._done(shard)
            if mark is None:
                return None
            gathered.files.update(mark.files)
            gathered.status.update(dict(enumerate(mark.status)))
            gathered.samples.update(mark.samples)
            for name, drifters in gathered.drifters.items():
                drifters.update(mark.drifters[name])
            for number, odd in odd_of(mark).items():
                gathered.odd.setdefault(number, []).append(odd)
        return gathered

    def _is_finished(self) -> bool:
        """Tells whether the store is finished and whole.

        At the gate before anything is begun or taken away, since another part may finish the store at any time.

        Raises:
            ConfigError: it was made from something else.
            StoreError: it is damaged.
        """
        if not durable.there(self.store / manifest.NAME):
            return False
        listing = manifest.read(self.store)
        facts = self.build.facts
        if (listing.recipe, listing.sources) != (facts["recipe"], facts["sources"]):
            raise ConfigError(
                f"{self.store} is a finished store made from another manifest or other sources. Choose another --out, "
                f"or replace it with --overwrite."
            )
        for name, entry in listing.files.items():
            status = limits.look(self.store / name)
            if status is None or status.st_size != entry.size:
                raise StoreError(
                    f"{self.store} is a finished store and damaged: {name} is missing or has another size. Make it "
                    f"again with --overwrite."
                )
        return True

    def _open(self) -> None:
        """Starts or continues the store: the inputs that it was begun from must be unchanged."""
        path = unfinished.plan_of(self.store)
        now = self.build.begun
        if not durable.there(path):
            # What a run that was stopped while it replaced a store has left. The marks too: they speak of the old
            # shards, and new files of the same sizes would be taken for those.
            arrays = [spec.name for spec in schema.arrays(self.build.plan.layout)]
            for left in (
                *(unfinished.mark_of(self.store, shard) for shard in unfinished.marked(self.store)),
                *(self.store / name for name in (*arrays, store_files.GROUP, store_files.DRIFTERS)),
            ):
                durable.remove(left)
            manifest.write_file(path, manifest.to_bytes(now.as_json()), "plan")
            return
        begun = unfinished.read_begun(self.store)
        if manifest.to_bytes(begun.as_json()) != manifest.to_bytes(now.as_json()):
            raise ConfigError(
                f"{self.store} was begun from another manifest or other sources (see {path}), so its shards cannot be "
                f"continued: {_difference(begun, now)}. Choose another --out, or start afresh with --overwrite."
            )

    def _finish(self, gathered: "_Gathered") -> None:
        """Writes the metadata and, last, the manifest; then removes `.building`. At the gate."""
        store, status = self.store, gathered.status
        dropped = {schema.STATUS[k]: n for k, n in sorted(status.items()) if k and n}
        notes = self.build.remarks({number: Odd.joined(parts) for number, parts in gathered.odd.items()})
        if not status[0]:
            said = " ".join(f"{note}." for note in notes)
            reasons = " ".join(f"{n} of {sum(dropped.values())} windows, {why!r}: {advice.OF_SAMPLES[why]}"
                            for why, n in dropped.items())  # fmt: skip
            raise StoreError(f"no window can be used. {reasons} {said}".strip())
        wanted = [name for name in schema.SPLITS if getattr(self.build.recipe.split, name)]
        splits = {
            name: {"samples": gathered.samples[name], "drifters": len(gathered.drifters[name])} for name in wanted
        }
        files = gathered.files | {
            name: manifest.write_file(store / name, manifest.to_bytes(tree), "metadata")
            for name, tree in store_metadata.trees(self.build).items()
        }
        listing = store_metadata.manifest_of(self.build, files, status[0], dropped, splits, notes)
        for left in store.rglob(f".*{durable.PART}"):  # of a writer that was killed; every shard is there now
            if left.parent.name != manifest.STAGING:
                durable.remove(left)
        manifest.write_file(store / manifest.NAME, manifest.to_bytes(listing.as_json()), "manifest")
        self.lock.clean()
        for note in notes:
            command.say(f"note: {note}")


@dataclass(frozen=True)
class _Gathered:
    """The marks of all shards as one.

    Attributes:
        files: The shards' files.
        status: Number of samples by position in `schema.STATUS`.
        samples: Number of samples of each split.
        drifters: The drifters of each split, as numbers.
        odd: Oddities of the levels of each source of currents, by its number.
    """

    files: dict[str, FileEntry]
    status: Counter[int]
    samples: Counter[str]
    drifters: dict[str, set[int]]
    odd: dict[int, list[Odd]]


def _difference(begun: Begun, now: Begun) -> str:
    """Differences in a few words: the manifest's sections first, as other sources follow from those."""
    if (begun.driftcal_version, begun.schema_version) != (now.driftcal_version, now.schema_version):
        return (
            f"it was begun by driftcal {begun.driftcal_version} (schema {begun.schema_version}), this is "
            f"{now.driftcal_version} (schema {now.schema_version})"
        )
    sections = [key for key in {**begun.recipe, **now.recipe} if begun.recipe.get(key) != now.recipe.get(key)]
    if sections:
        return f"in the manifest {' and '.join(sections)} changed"
    changed = []
    for kind, sources in now.sources.items():
        before = list(zip(begun.sources.get(kind, []), begun.states.get(kind, []), strict=False))
        for k, (source, state) in enumerate(zip(sources, now.states[kind], strict=True)):
            if k >= len(before) or before[k] != (source, state):
                changed.append(f"{kind} {source['path']}")
    if changed:
        return f"{' and '.join(changed)} changed since, in content, size or time of change"
    return "the samples have another layout"
