"""`drift-preprocess`: makes a shard store from a data manifest."""

import argparse
import contextlib
import ctypes
import re
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from driftcal.preprocess.drift import advice, agreement, candidates, encounters, funnel, gaps, leaving
from driftcal.preprocess.drift import plan as planning
from driftcal.preprocess.made import twin
from driftcal.preprocess.recipe import Recipe, Synthetic
from driftcal.preprocess.sources.drifters.drifters import open_drifters
from driftcal.preprocess.sources.gridded import open_currents
from driftcal.preprocess.sources.gridded.level_cache import Levels
from driftcal.preprocess.writing import cluster, output_folder, shard_task
from driftcal.preprocess.writing import estimate as estimating
from driftcal.preprocess.writing.build import Build
from driftcal.preprocess.writing.workers import at_once
from driftcal.preprocess.writing.write import Writing
from driftcal.shared import command, paths, settings
from driftcal.shared.disk import durable, litter, temporary
from driftcal.shared.disk.claims import Busy, Lock, hold
from driftcal.shared.errors import ConfigError, StoreError
from driftcal.shared.inspection import facts
from driftcal.shared.inspection import text as show
from driftcal.shared.store import manifest
from driftcal.shared.text import counted, duration, parse_size, size, were

MADE = "made.json"
"""File beside a twin's files: the settings that they were made with."""

MAKING = ".making"
"""Folder beside them for the locks of those who make them."""


def _parser() -> argparse.ArgumentParser:
    to = command.parser(
        "drift-preprocess",
        "Cuts a fixed-size window of currents around every drifter segment and writes a shard store.",
        "drift-preprocess data_manifest.yaml --out stores/agulhas --set window.half_width_deg=3",
    )
    manifest_path, out = paths.argument("manifest"), paths.argument("--out")
    to.add_argument(
        "manifest",
        nargs="?",
        type=manifest_path,
        default="data_manifest.yaml",
        help="YAML file (default: %(default)s)",
    )
    to.add_argument(
        "--out", required=True, type=out, metavar="STORE", help="folder of the store to make or to continue"
    )
    to.add_argument("--set", action="append", default=[], metavar="a.b=c", help="override a key of the manifest")
    to.add_argument("--dry-run", action="store_true", help="plan, print the funnel and what it will take, and stop")
    to.add_argument("--parts", default="1/1", metavar="k/N", help="write only every N-th shard, from the k-th (1..N)")
    to.add_argument("--scheduler", default="threads", help="dask: threads, processes, synchronous or tcp://host:port")
    to.add_argument(
        "--workers", type=int, default=None, help="dask workers here (default: one per core that it may use)"
    )
    to.add_argument("--memory-limit", metavar="SIZE", help="refuse to take more memory than this, such as 4GB")
    to.add_argument("--overwrite", action="store_true", help="replace the store in STORE, once the plan is made")
    to.add_argument(
        "--take-over", action="store_true", help="build although a process that cannot be seen from this host may too"
    )
    command.add_common(to)
    return to


FEW_DRIFTERS = 5
"""A split of fewer drifters is warned of."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return command.run(_run, command.parsed(_parser(), arguments))


def _run(options: argparse.Namespace) -> int:
    share = _share(options.parts)
    if options.scheduler not in shard_task.SCHEDULERS and not options.scheduler.startswith(cluster.ADDRESSES):
        raise ConfigError(
            f"--scheduler {options.scheduler!r}: expected one of {', '.join(shard_task.SCHEDULERS)} or tcp://..."
        )
    if options.workers is not None and options.workers < 1:
        raise ConfigError(f"--workers {options.workers}: expected at least 1.")
    if options.memory_limit is not None:
        parse_size(options.memory_limit, "--memory-limit")
        if options.scheduler.startswith(cluster.ADDRESSES):
            raise ConfigError(
                "--memory-limit and a cluster: its workers keep limits of their own. Leave out --memory-limit, and "
                "start the workers with one (dask worker --memory-limit 4GB)."
            )
    if options.workers is not None and options.scheduler.startswith(cluster.ADDRESSES):
        raise ConfigError(
            f"--workers {options.workers} and --scheduler {options.scheduler}: a cluster has the workers that it was "
            f"started with. Leave out --workers, or start the cluster with more of them."
        )
    tree = settings.override(settings.read_yaml(options.manifest), options.set)
    recipe = settings.build(Recipe, tree, options.manifest)
    store = Path(options.out)
    output_folder.check(recipe, store)
    progress = command.progress() and not options.json
    if recipe.synthetic is not None:
        _make_twin(recipe.synthetic, options.dry_run, options.take_over, progress)
    if options.dry_run:
        with temporary.folder("--dry-run") as folder:
            build = planned(recipe, store, folder / "tracks.bin", progress)
            _told(build, share, options)
            return 0
    finished = _make(recipe, store, share, options, progress)
    if options.json:
        command.emit(facts.facts(store).as_json())
    elif finished:
        print(show.render(facts.facts(store)))
    else:
        command.say(f"part {options.parts} is done; the store is finished when all parts are.")
    return 0


def _make(recipe: Recipe, store: Path, share: tuple[int, int], options: argparse.Namespace, progress: bool) -> bool:
    """Plans and writes the store, or the part of it; whether it is finished."""
    if options.scheduler.startswith(cluster.ADDRESSES):
        cluster.check(options.scheduler)  # before hours of planning
    with _held(store, share, options) as lock:
        build = planned(recipe, store, lock.scratch, progress)
        _return_memory()
        workers = _told(build, share, options)
        writing = Writing(build, lock)
        if options.overwrite:
            writing.clear()
        return writing.write(share, options.scheduler, workers, progress)


def _told(build: Build, share: tuple[int, int], options: argparse.Namespace) -> int | None:
    """Reports the cost of making the store, and refuses it above `--memory-limit`; returns the shards at a time."""
    workers = None
    if not options.scheduler.startswith(cluster.ADDRESSES):
        of_share = len(range(build.plan.layout.n_shards)[share[0] - 1 :: share[1]])
        workers = at_once(options.scheduler, options.workers, of_share)
    wanted = estimating.estimate(build, share, workers, options.scheduler == "processes")
    foretold = _foretold(build) if options.dry_run else []
    if options.json and options.dry_run:
        command.emit(
            {
                "estimate": wanted.as_json(),
                "funnel": [manifest.stage_as_json(stage) for stage in build.plan.funnel],
                "agreement": build.agreement.as_json(),
                "members_leaving": [one.as_json() for one in foretold],
                "notes": (*build.notes, *build.foreseen),
                **build.facts,
            }
        )
    elif not options.json:
        _report(build, wanted)
        if foretold:
            for line in leaving.lines(foretold, build.recipe.segment.days):
                command.say(line)
    if options.memory_limit is not None:
        estimating.check_memory(wanted, parse_size(options.memory_limit, "--memory-limit"))
    return workers


def _foretold(build: Build) -> list[leaving.Leaving]:
    """Shares of the members that will leave their windows."""
    try:
        return leaving.foretell(build.plan, build.scratch, build.currents)
    except OSError as error:
        raise shard_task.tracks_gone(build.scratch, error) from error


def _share(text: str) -> tuple[int, int]:
    """The numbers k and N of `k/N`."""
    match = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--parts {text!r}: expected k/N with 1 <= k <= N, such as 3/8.")
    return int(match[1]), int(match[2])


def _make_twin(spec: Synthetic, dry_run: bool, take_over: bool, progress: bool) -> None:
    """Makes the twin's files, unless they are there: made again they would be other files to a store's manifest.

    One process makes them, as those of an array of `--parts` begin together; the others wait, and find them there.
    """
    folder = spec.place
    given = open_currents.open_currents(spec.currents).fingerprint if spec.currents is not None else None
    wanted = {"driftcal": version("driftcal"), "synthetic": spec.model_dump(mode="json"), "currents": given}
    mark, content = folder / MADE, manifest.to_bytes(wanted)

    def there() -> bool:
        return (folder / "drifters.nc").exists() and mark.exists() and mark.read_bytes() == content

    try:
        if there():
            return
        if dry_run:
            raise ConfigError(
                f"--dry-run writes nothing, and the twin in {folder} is not made yet, or with other settings. Run "
                f"without --dry-run."
            )
        with _making(folder, take_over):
            if there():  # by now
                return
            mark.unlink(missing_ok=True)
            twin.make(spec, progress)
            manifest.write_file(mark, content)
    except OSError as error:
        raise ConfigError(
            f"synthetic.folder {folder}: cannot use {error.filename or folder} ({error.strerror or error}); expected a "
            f"folder that you may read and write. Choose another synthetic.folder, or have its permissions changed."
        ) from error


@contextlib.contextmanager
def _making(folder: Path, take_over: bool) -> Iterator[None]:
    """The right to make the files in `folder`; waits for another process that has it."""
    locks, waits = folder / MAKING, False
    with contextlib.ExitStack() as stack:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            locks.mkdir(exist_ok=True)
            try:
                stack.enter_context(hold(locks, (1, 1), alone=True, take_over=take_over))
                break
            except Busy as busy:
                if not waits:
                    command.say(
                        f"waiting for {busy.other}, which makes the twin in {folder} ... If that process has ended, "
                        f"run the command with --take-over."
                    )
                waits = True
                time.sleep(0.5)
            except StoreError:
                if locks.exists():  # else the other has ended just now, and taken it away
                    raise
        yield
    with contextlib.suppress(OSError):
        locks.rmdir()


@contextlib.contextmanager
def _held(store: Path, share: tuple[int, int], options: argparse.Namespace) -> Iterator[Lock]:
    """Claims the right to build; at the end removes folders that were made for it and are empty."""
    folder = store / manifest.STAGING
    try:
        created = [new for new in (folder, *folder.parents) if not durable.there(new)]
        durable.make_folder(folder)
    except StoreError as error:
        raise ConfigError(str(error)) from error
    try:
        with hold(folder, share, options.overwrite, options.take_over) as lock:
            yield lock
    finally:
        if durable.there(store / manifest.NAME):
            created = [folder]
        for new in created:
            with contextlib.suppress(OSError):
                litter.sweep(new)
                new.rmdir()


def planned(recipe: Recipe, store: Path, scratch: Path, progress: bool) -> Build:
    """Plans `store`; nothing of it is written but tracks, to the file `scratch`.

    Raises:
        DriftcalError: the sources cannot be used, or nothing of them is left.
    """
    drifters = [open_drifters(source) for source in recipe.drifters]
    levels = Levels()
    currents = [open_currents.open_currents(source, levels, number) for number, source in enumerate(recipe.currents)]
    try:
        survey = candidates.survey(recipe, drifters, scratch, progress)
        plan = planning.plan(recipe, survey, scratch, currents)
        compared = agreement.compare(encounters.meet(plan, survey, scratch, currents))
    except OSError as error:
        raise shard_task.tracks_gone(scratch, error) from error
    return Build(
        store=store,
        recipe=recipe,
        plan=plan,
        drifters=survey.drifters,
        currents=currents,
        levels=levels,
        scratch=scratch,
        sources={
            "drifters": [source.fingerprint for source in drifters],
            "currents": [source.fingerprint for source in currents],
        },
        states={
            "drifters": [source.state for source in drifters],
            "currents": [source.state for source in currents],
        },
        agreement=compared.figures,
        # after the survey, which may have found something to repair
        notes=(
            *(note for source in (*drifters, *currents) for note in source.notes),
            *open_currents.warnings(recipe.currents, currents),
            *survey.notes,
            *candidates.warnings(survey),
            *plan.warnings,
            *gaps.known(plan, currents).warnings(),
            *compared.warnings,
        ),
    )


def _return_memory() -> None:
    """Returns freed memory to the system.

    glibc keeps what lies below anything in use: up to a hundred megabytes from reading the drifters, of no use to the
    threads that make shards, which have heaps of their own.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _report(build: Build, wanted: estimating.Estimate) -> None:
    layout = build.plan.layout
    memory, each = f"{size(wanted.memory_bytes)} of memory for {wanted.workers} at a time", ""
    if wanted.workers is None:
        of_worker = size(wanted.memory_bytes_per_worker)
        memory = f"{of_worker} of memory for a worker of one thread, {size(wanted.memory_bytes)} here"
        each = " of one worker"
    for note in (*build.notes, *build.foreseen):
        command.say(f"note: {note}")
    command.say(show.render_funnel(build.plan.funnel))
    command.say(show.render_agreement(build.agreement))
    command.say(
        f"window: {layout.n_times} levels of {layout.n_lat} x {layout.n_lon} cells; "
        f"{counted(layout.n_samples, 'sample')} in {counted(layout.n_shards, 'shard')}; "
        f"about {size(wanted.disk_bytes)} on disk, at most {size(wanted.disk_bytes_at_most)}; "
        f"{memory}; about {duration(wanted.seconds)}{each}, "
        f"as fast as {wanted.trial} of its windows {were(wanted.trial)} cut just now"
    )
    for reason, n in wanted.trial_unusable.items():
        many = n > funnel.MANY * wanted.trial
        advice_text = f" {advice.OF_SAMPLES[reason]}" if many else ""
        command.say(f"{'WARNING: ' * many}{n} of these {wanted.trial} windows cannot be used, {reason!r}.{advice_text}")
    for name, (samples, drifters) in build.plan.split_counts.items():
        few = " WARNING: so few say little about other drifters." if drifters < FEW_DRIFTERS else ""
        command.say(f"{name}: {counted(samples, 'sample')} of {counted(drifters, 'drifter')}.{few}")


if __name__ == "__main__":
    sys.exit(main())
