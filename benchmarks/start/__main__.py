"""``python -m benchmarks.start``: print the scores, or make labels, predictions and the figure again."""

from __future__ import annotations

import argparse

from rich.console import Console

from benchmarks.start import figure, label, report, score
from benchmarks.start.population import HEADLINE, SETS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--set", choices=sorted(SETS), default=HEADLINE, help=f"which networks (default: {HEADLINE})")
    parser.add_argument("--relabel", action="store_true", help="train what has no label yet (delete the csv to redo)")
    parser.add_argument("--optimizer", choices=sorted(label.RATES), default="adam", help="labels of which optimizer")
    parser.add_argument("--score", action="store_true", help="predict and measure again, write scores_SET.csv")
    parser.add_argument("--figure", metavar="FILE", help="draw the calibration curve and the ROC curves")
    args = parser.parse_args()
    if args.relabel:
        label.relabel(args.set, args.optimizer)
    if args.score:
        score.store(args.set)
    rows = score.scored(args.set, args.optimizer)
    if args.figure:
        figure.draw(rows, args.figure)
    Console().print(report.rich_report(rows))


main()
