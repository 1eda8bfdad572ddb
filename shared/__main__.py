"""`drift-inspect`: shows and verifies a store, and draws its samples."""

import argparse
import sys
from pathlib import Path

from driftcal.shared import command, paths
from driftcal.shared.errors import ConfigError
from driftcal.shared.inspection import facts, text
from driftcal.shared.store import verify
from driftcal.shared.store.reader import ShardStore

EXAMPLES = {
    "show": "drift-inspect show stores/agulhas",
    "verify": "drift-inspect verify stores/agulhas && drift-train run stores/agulhas --out runs/agulhas",
    "sample": "drift-inspect sample stores/agulhas 42 --plot sample-42.png",
    "plot": "drift-inspect plot stores/agulhas --out figures --split test",
}


def _parser() -> argparse.ArgumentParser:
    to = command.parser(
        "drift-inspect", "Says what a shard store holds, whether it is whole, and draws it.", EXAMPLES["show"]
    )
    actions = to.add_subparsers(dest="action", required=True, metavar="{show,verify,sample,plot}")

    def action(name: str, purpose: str) -> argparse.ArgumentParser:
        like = command.parser(f"drift-inspect {name}", purpose, EXAMPLES[name])
        parser = actions.add_parser(
            name, help=purpose, description=purpose, epilog=like.epilog, formatter_class=like.formatter_class
        )
        parser.add_argument(
            "store", metavar="STORE", type=paths.argument("STORE"), help="folder that drift-preprocess made"
        )
        command.add_common(parser)
        return parser

    action("show", "Tells what the store holds and where it came from, half-built stores too.")
    action("verify", "Checks every file, checksum, sample and label of the store.")
    sample = action("sample", "Tells everything about one sample.")
    sample.add_argument("index", metavar="INDEX", type=int, help="number of the sample, from 0")
    to_file, to_folder = paths.argument("--plot"), paths.argument("--out")
    sample.add_argument("--plot", metavar="FILE", type=to_file, help="draw it too: a .png, .pdf or .svg file")
    plot = action("plot", "Draws where, when and how fast the samples are, and nine of their windows.")
    plot.add_argument("--out", required=True, metavar="DIR", type=to_folder, help="folder for the figures")
    plot.add_argument("--split", metavar="NAME", help="draw the samples of one split: train, validation or test")
    return to


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = command.parsed(_parser(), arguments)
    work = {"show": _show, "verify": _verify, "sample": _sample, "plot": _plot}[options.action]
    return command.run(work, options, interrupted="interrupted. Nothing in the store was changed.")


def _show(options: argparse.Namespace) -> int:
    contents = facts.facts(options.store)
    if options.json:
        command.emit(contents.as_json())
    else:
        print(text.render(contents))
    return 0


def _verify(options: argparse.Namespace) -> int:
    verdict = verify.verify(options.store, command.progress() and not options.json)
    if options.json:
        command.emit(verdict.as_json())
    else:
        print(text.render_verdict(verdict, options.store))
    return 0 if verdict.ok else 1


def _sample(options: argparse.Namespace) -> int:
    opened = ShardStore(options.store)
    contents = facts.sample(opened, options.index)
    if options.plot:
        # they bring matplotlib, which nothing but drawing needs
        from driftcal.shared.inspection import figures as store_figures  # noqa: PLC0415
        from driftcal.shared.inspection import map_plots  # noqa: PLC0415

        _refuse_inside(options.plot, opened.root)
        map_plots.save(lambda: store_figures.one(opened, options.index), options.plot)
    if options.json:
        command.emit(contents.as_json())
    else:
        print(text.render_sample(contents))
    return 0


def _plot(options: argparse.Namespace) -> int:
    from driftcal.shared.inspection import figures as store_figures  # noqa: PLC0415 - as in `_sample`

    opened = ShardStore(options.store)
    _refuse_inside(options.out, opened.root)
    written = [str(path) for path in store_figures.plot(opened, options.out, options.split)]
    if options.json:
        command.emit({"figures": written})
    else:
        print("\n".join(written))
    return 0


def _refuse_inside(place: str, store: Path) -> None:
    """Refuses to write into the store: `verify` would find a foreign file there."""
    if Path(place).resolve().is_relative_to(store.resolve()):
        raise ConfigError(f"{place} lies inside the store {store}. Choose a place outside it.")


if __name__ == "__main__":
    sys.exit(main())
