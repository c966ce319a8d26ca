"""``python -m benchmarks.start``: print the scores, or make labels, predictions and the figure again.

``--set 400@12345 --folder DIR --relabel --score`` draws 400 networks by another seed, trains and scores them;
``--networks FILE.py --folder DIR`` does so for networks of your own (docs/start.md says what the file holds).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.start import figure, foreign, label, report, score
from benchmarks.start.population import HELD_OUT, SETS, size_and_seed
from firstlight.errors import FirstlightError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument(
        "--set", help=f"which networks: {', '.join(SETS)}, or COUNT@SEED (default: {' and '.join(HELD_OUT)})"
    )
    parser.add_argument("--networks", type=Path, metavar="FILE.py", help="networks of your own in place of a set")
    parser.add_argument("--labels", type=Path, metavar="FILE.csv", help="which of them start: columns name and starts")
    parser.add_argument("--folder", type=Path, default=score.FOLDER, help="where labels and scores lie")
    parser.add_argument("--relabel", action="store_true", help="train what has no label yet (delete the csv to redo)")
    parser.add_argument("--optimizer", choices=sorted(label.RATES), default="adam", help="labels of which optimizer")
    parser.add_argument("--score", action="store_true", help="predict and measure again, write scores_SET.csv")
    parser.add_argument("--figure", metavar="FILE", help="draw the calibration curve and the ROC curves")
    args = parser.parse_args(arguments)
    try:
        if args.networks:
            known = foreign.labels(args.labels) if args.labels else None
            out = args.folder / f"scores_{args.networks.stem}.csv"
            rows = foreign.judge(args.networks, out, known, args.optimizer)
        else:
            rows = []
            for name in (args.set,) if args.set else HELD_OUT:
                size_and_seed(name)
                if args.relabel:
                    label.relabel(name, args.optimizer, folder=args.folder)
                if args.score:
                    score.store(name, args.folder)
                rows += score.scored(name, args.optimizer, args.folder)
        if args.figure:
            figure.draw(rows, args.figure)
    except FirstlightError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console().print(report.rich_report(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
