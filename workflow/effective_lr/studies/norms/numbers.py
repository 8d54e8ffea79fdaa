"""Numbers of sentences that are no statistic of a claim."""

from effective_lr.document.notation import thousands
from effective_lr.document.table import MISSING, Results, interval
from effective_lr.evidence.estimates import Undecidable
from effective_lr.studies.norms.analysis import REPORTED, STANDARD, by_split, cells, chosen, paired, tuned
from effective_lr.studies.norms.analysis import arms as arms_of
from effective_lr.studies.norms.settings import parse_arms


def numbers(results: Results) -> dict[str, str]:
    """networks/count, shrinkage, momentum and clip of `alignment`; alignment/at-end and simulated/at-end, the share of
    choices at an end of the grid; wins/<penalty>-25 and -5, in how many cells of D1 a penalty is better than the best
    standard one of 25 strengths, or of 5, its whole interval below 0, and wins/cells, of how many; all/<penalty>,
    the penalty on all layers against that on the first, over the cells that have both.
    """
    trained = results.tables.runs()
    count = 0
    for kind, text, folds in trained[["kind", "arms", "folds"]].itertuples(index=False):
        arms = parse_arms(text)
        count += len(arms) * folds + len({a.penalty for a in arms}) if kind == "tuned" else 0
        count += len(arms) if kind in ("network", "bridge") else 0
    found = {"networks/count": thousands(count)}
    old = results.tables["alignment"].runs
    for key in ("shrinkage", "momentum", "clip"):
        found[f"networks/{key}"] = f"{old[key].iloc[0]:g}" if len(old) else MISSING
    best = chosen(arms_of(results.tables["alignment"]))
    own = best[~best["penalty"].isin(["none"])]
    found["alignment/at-end"] = f"{100 * own['at_end'].mean():.0f}" if len(own) else MISSING
    try:
        table = tuned(results.tables, "simulated")
    except Undecidable:
        return found
    pairs = table[table["penalty"].isin(["covridge", "sparridge"])]
    found["simulated/at-end"] = f"{100 * pairs['at_end'].mean():.0f}"
    found["wins/cells"] = str(sum(1 for _ in cells(table)))
    for penalty in ("covridge", "sparridge"):
        for words, references in (("25", STANDARD), ("5", REPORTED)):
            estimates = [by_split(paired(cell, penalty, references)) for _, cell in cells(table)]
            found[f"wins/{penalty}-{words}"] = str(sum(estimate.high < 0 for estimate in estimates))
        try:
            both = paired(tuned(results.tables, "simulated", "simulated_all"), f"{penalty}-all", (penalty,))
            found[f"all/{penalty}"] = interval(by_split(both), digits=3)
        except Undecidable:
            found[f"all/{penalty}"] = MISSING
    return found
