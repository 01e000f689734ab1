"""``scripts/bench``: measures this clone beside its peers. See ``scripts/bench --help``."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import runpy
import shutil
import sys
import tempfile

from bench import products, report, rounds

_TESTS = pathlib.Path(__file__).resolve().parents[1]
#: Measurements of single rooms, each a script of its own; all further words are theirs.
_ROOMS = {
    "consensus": _TESTS / "consensus" / "measure_consensus.py",
}


def main(words: list[str]) -> int:
    """Runs what the words say; the exit status."""
    if words and words[0] in _ROOMS:
        script = _ROOMS[words[0]]
        sys.argv = [str(script), *words[1:]]
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name="__main__")
        return 0
    if words and words[0] == "attempt":
        from bench import attempt

        return attempt.main(words[1:])
    if words and words[0] == "catalog":
        from bench import catalog

        return catalog.main(words[1:])
    if words and words[0] == "placement":
        from bench import placement

        return placement.main(words[1:])
    if words and words[0] == "what-if":
        from bench import whatif

        return whatif.main(words[1:])
    chosen = _parser().parse_args(words)
    if chosen.what == "job":
        from bench import latency

        return latency.main(chosen)
    if chosen.what == "edge":
        from bench import edge

        return edge.main(chosen)
    if chosen.what == "rebuild":
        from bench import rebuild

        return rebuild.main(chosen)
    if chosen.what == "failover":
        from bench import failover

        return failover.main(chosen)
    if chosen.what == "jobs":
        from bench import jobs

        return jobs.main(chosen)
    if chosen.what == "idle":
        from bench import idle

        return idle.main(chosen)
    if chosen.what == "recover":
        from bench import recovery

        return recovery.main(chosen)
    return _vault(chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures this clone beside its peers, interleaved; quote the ratios, never the seconds.",
        epilog="scripts/bench catalog ... and scripts/bench consensus ... measure those rooms alone, scripts/bench attempt "
        "... the worker of a backup, scripts/bench placement ... how loads are balanced, scripts/bench what-if ... a night in "
        "virtual time.",
    )
    kinds = parser.add_subparsers(dest="what", required=True)
    vault = kinds.add_parser("vault", help="backup, restore, verify beside restic, borg, tar and cp")
    vault.add_argument("--data", default="large,small,mixed", help="which trees: large, small, mixed (default: all)")
    vault.add_argument("--scale", type=float, default=1.0, help="of the trees; 1 is 2 GiB, 60,000 files, and of both")
    vault.add_argument("--rounds", type=int, default=3, help="how often (default: 3)")
    names = ",".join(product.name for product in products.PRODUCTS)
    vault.add_argument("--products", default=names, help=f"which (default: {names})")
    vault.add_argument("--phases", default=",".join(rounds.PHASES), help="which; the first backup is always made")
    vault.add_argument("--folder", help="where the trees and stores go (default: TMPDIR)")
    vault.add_argument("--json", metavar="FILE", help="write every number there")
    failover = kinds.add_parser("failover", help="the administrator is lost: how long until another one is in office")
    failover.add_argument(
        "--kills", type=int, default=0, help="killed so often (default: 30, if nothing else is asked)"
    )
    failover.add_argument("--pause", type=int, default=0, help="stopped so often, for longer than an election takes")
    failover.add_argument("--cut", type=int, default=0, help="cut off so often, alive on both sides; as root")
    failover.add_argument("--lose-disk", type=int, default=0, help="killed so often with its disk, each in a new mesh")
    failover.add_argument("--folder", help="where the mesh goes (default: TMPDIR)")
    idle = kinds.add_parser("idle", help="what members that do nothing cost the administrator")
    idle.add_argument("--members", type=int, default=1000)
    idle.add_argument("--seconds", type=float, default=60.0, help="how long it is measured (default: 60)")
    idle.add_argument("--folder", help="where the mesh goes (default: TMPDIR)")
    job = kinds.add_parser("job", help="what a job costs that has next to nothing to do")
    job.add_argument("--jobs", type=int, default=20)
    job.add_argument("--folder", help="where the mesh goes (default: TMPDIR)")
    jobs = kinds.add_parser("jobs", help="tiny jobs through three servers: latency, and how many in a minute")
    jobs.add_argument("--jobs", type=int, default=500)
    jobs.add_argument("--remote", action="store_true", help="each from one server to the device of another")
    jobs.add_argument("--folder", help="where the mesh goes (default: TMPDIR)")
    edge = kinds.add_parser("edge", help="the ugly tree of another harness, backed up and restored; as root")
    edge.add_argument("--harness", required=True, metavar="FOLDER", help="where its compare.py and datasets.py are")
    edge.add_argument("--user", metavar="NAME", help="the daemon and its commands are of this plain user")
    edge.add_argument("--tree", choices=("own", "root"), default="own", help="with --user: who made the tree")
    edge.add_argument("--folder", help="where the tree and the device go (default: TMPDIR)")
    rebuild = kinds.add_parser("rebuild", help="a lost catalog made anew from the device")
    rebuild.add_argument("--files", type=int, default=100_000)
    rebuild.add_argument("--sets", type=int, default=4, help="a full one and incrementals (default: 4)")
    rebuild.add_argument("--folder", help="where the mesh and the files go (default: TMPDIR)")
    recover = kinds.add_parser("recover", help="the whole mesh back from one disk and the recovery kit")
    recover.add_argument("--servers", type=int, default=3)
    recover.add_argument("--files", type=int, default=1500, help="in each of its two sets (default: 1500)")
    recover.add_argument("--folder", help="where the mesh and the files go (default: TMPDIR)")
    return parser


def _vault(chosen: argparse.Namespace) -> int:
    wanted = chosen.products.split(",")
    unknown = set(wanted) - {product.name for product in products.PRODUCTS}
    phases = chosen.phases.split(",")
    if unknown or set(phases) - set(rounds.PHASES):
        print(f"no such product or phase: {', '.join(sorted(unknown | (set(phases) - set(rounds.PHASES))))}")
        return 2
    present: list[type[products.Product]] = []
    for product in products.PRODUCTS:
        if product.name not in wanted:
            continue
        reason = product.absent()
        if reason is None:
            present.append(product)
            print(f"{product.name}: {product.version()}; {product.note}")
        else:
            print(f"{product.name}: skipped, {reason}")
    documents = []
    folder = pathlib.Path(tempfile.mkdtemp(prefix="caso-mesh-bench-", dir=chosen.folder))
    failed = False
    try:
        for kind in chosen.data.split(","):
            made, series = rounds.measure(
                kind, present, folder / kind, scale=chosen.scale, rounds=chosen.rounds, phases=phases
            )
            print(f"\n{kind}: {made.files} files, {made.bytes / 1e6:.0f} MB, medians of {chosen.rounds}\n")
            print(report.tables(kind, series, phases), flush=True)
            documents.append(report.document(kind, series, made))
            failed = failed or any(each.problems for each in series.values())
            # the next tree needs the room, and must not pay for the removal
            shutil.rmtree(folder / kind)
            os.sync()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{report.machine()}")
    if chosen.json:
        versions = {product.name: product.version() for product in present}
        whole = {"machine": report.machine(), "versions": versions, "scale": chosen.scale, "trees": documents}
        pathlib.Path(chosen.json).write_text(json.dumps(whole, indent=1), "utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
