"""The command line: `python -m effective_lr --help`. A mistake of the user ends in one sentence and exit code 1.

Modules are imported where they are needed: a job that finds all its runs finished never imports torch.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from effective_lr.engine.grid import load_config
from effective_lr.engine.inputs import Layout, data_of, recorded
from effective_lr.errors import UserError

ROOT = Path(__file__).parents[2]  # of the repository, where sources and published results are
Arguments = argparse.Namespace


def layout_of(arguments: Arguments) -> Layout:
    """The scale that is asked for, by config/config.yaml where the command line leaves it open."""
    return Layout.load(ROOT, scale=arguments.scale, metrics=getattr(arguments, "metrics", ""))


# Jobs of the workflow


def prepare(arguments: Arguments) -> None:
    from effective_lr.prepare.catalog import prepare as prepare_data

    print(prepare_data(arguments.name, arguments.folder, arguments.tensors, arguments.record, arguments.optional))


def train(arguments: Arguments) -> int:
    from effective_lr.engine import grid
    from effective_lr.engine.code import training_key
    from effective_lr.engine.jobs import Options, RunCache, run_job

    layout, study, name = layout_of(arguments), arguments.study, arguments.run or arguments.job
    chapter = layout.chapters[study]
    given = os.environ  # what changes no result comes this way, so that Snakemake does not compare it
    options = Options(
        device=given.get("EFFECTIVE_LR_DEVICE", layout.config.device),
        gpu_slots=int(given.get("EFFECTIVE_LR_GPU_SLOTS", layout.config.gpu_slots)),
        checkpoint_seconds=float(given.get("EFFECTIVE_LR_CHECKPOINT_SECONDS", layout.config.checkpoint_seconds)),
        retrain=bool(given.get("EFFECTIVE_LR_RETRAIN")),
    )
    runs = [run for run in chapter.runs if run.run_id == name] if arguments.run else chapter.jobs.get(name, [])
    if not runs:
        raise UserError(f"{name}: no such job or run of {study} at the scale {layout.config.scale_name}")
    if arguments.runs_hash not in ("", grid.runs_hash(runs)):
        raise UserError(f"{name}: its runs changed since this job was planned; start the workflow again")
    data = data_of(chapter.study, runs[0])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if arguments.run else layout.results(study) / "runs"
        cache = RunCache(folder, arguments.code or training_key(chapter.study), recorded(data, "sha256"))
        return run_job(name, chapter.study, runs, cache, data, arguments.output, options)


def checks(arguments: Arguments) -> None:
    import pandas as pd

    from effective_lr.engine.study import load

    rows = load(arguments.study).find("checks", "rows")  # a study need not have any
    table = pd.DataFrame(rows() if rows else [], columns=["check", "subject", "holds", "value", "seed"])
    table.to_parquet(arguments.output, index=False)
    print(table.groupby(["check", "subject"], sort=False)["value"].agg(["min", "max"]).to_string())


def figure(arguments: Arguments) -> None:
    from effective_lr.document.figures import draw, save_pdf
    from effective_lr.evidence import tidy

    layout = layout_of(arguments)
    chapter = layout.chapters[arguments.study]
    item = chapter.contents.figures[arguments.name]
    tables = tidy.read(chapter, layout.tables_of(arguments.study, item), chapter.experiments_of(item))
    save_pdf(draw(chapter.study, arguments.name, tables), arguments.output)
    print(f"{item.title}: {arguments.output}")


def chapter(arguments: Arguments) -> None:
    from effective_lr.document.chapter import write_chapter

    write_chapter(layout_of(arguments), arguments.study)


def claim(arguments: Arguments) -> None:
    from effective_lr.engine.storage import write_json
    from effective_lr.evidence import tidy, verdicts

    layout, study, name = layout_of(arguments), arguments.study, arguments.name
    chapter = layout.chapters[study]
    experiments = chapter.claims[name].experiments
    tables = tidy.read(chapter, layout.tables(study, experiments), experiments)
    decided = verdicts.decide_all(chapter, tables, tidy.read_checks(layout.checks(study)), layout.options)[name]
    write_json(decided, arguments.output)
    print(verdicts.as_text(decided))


def verdicts(arguments: Arguments) -> None:
    from effective_lr.document.figures import save_pdf
    from effective_lr.document.overview import read_claims
    from effective_lr.document.overview_figures import verdicts as draw_verdicts

    save_pdf(draw_verdicts(read_claims(layout_of(arguments))), arguments.output)


def paper(arguments: Arguments) -> None:
    from effective_lr.document.overview import write_paper

    write_paper(layout_of(arguments))


def pages(arguments: Arguments) -> None:
    from effective_lr.document.chapter import write_pages

    write_pages(layout_of(arguments), arguments.study)


def explore(arguments: Arguments) -> None:
    from effective_lr.document.explorer import write

    write(layout_of(arguments), arguments.output)


def notebook(arguments: Arguments) -> None:
    from effective_lr.document.execute_notebooks import run

    parameters = json.loads(arguments.parameters)
    print(run(arguments.source, parameters, arguments.executed, arguments.notebook, arguments.page))


def raw(arguments: Arguments) -> None:
    from effective_lr.prepare.raw import collect

    print(collect(arguments.folder, arguments.into))


# Commands of the user: about all studies, or the one that is asked for


def chosen_layout(arguments: Arguments, **chosen: str) -> Layout:
    layout = Layout.load(ROOT, **{"scale": arguments.scale, **chosen})
    if arguments.study not in ("", *layout.chapters):
        raise UserError(f"STUDY = '{arguments.study}': expected one of {', '.join(layout.chapters)}")
    chapters = {name: one for name, one in layout.chapters.items() if arguments.study in ("", name)}
    return replace(layout, chapters=chapters)


def published_layout(arguments: Arguments) -> Layout:
    """For commands about published results, whose scale is study where nothing is chosen."""
    scale = arguments.scale or load_config(ROOT, {}).scale or "study"
    return chosen_layout(arguments, scale=scale, metrics="recompute")


def plan(arguments: Arguments) -> None:
    from effective_lr.engine import plan as plans
    from effective_lr.engine.jobs import duration

    layout, total = chosen_layout(arguments), 0.0
    for study in layout.chapters:
        text, seconds = plans.plan(layout, study, arguments.cores, arguments.gpu_speed)
        total += seconds / arguments.cores
        print(f"{text}\n")
    if len(layout.chapters) > 1:
        scale, cores = layout.config.scale_name, arguments.cores
        print(f"{scale}, all studies: about {duration(total)} with {cores} jobs at a time.")


def clean(arguments: Arguments) -> None:
    from effective_lr.engine.plan import clean as clean_of

    layout = chosen_layout(arguments)
    for study in layout.chapters:
        print(clean_of(layout, study, arguments.remove))
    if not arguments.remove:
        print("Nothing was removed. `make clean-runs REMOVE=yes` removes these files.")


def publish(arguments: Arguments) -> None:
    from effective_lr.evidence.published import publish as publish_of

    layout = published_layout(arguments)
    for study in layout.chapters:
        print(publish_of(layout, study, arguments.partial))


def reuse(arguments: Arguments) -> None:
    from effective_lr.evidence.published import reuse as reuse_of

    layout = published_layout(arguments)
    for study in layout.chapters:
        print(reuse_of(layout, study))


def compare(arguments: Arguments) -> int:
    from effective_lr.evidence.comparison import compare_with_published

    layout, all_agree = published_layout(arguments), True
    for study in layout.chapters:
        text, agree = compare_with_published(layout, study)
        all_agree &= agree
        print(f"{text}\n")
    return 0 if all_agree else 1


def certify(arguments: Arguments) -> None:
    from effective_lr.engine.certify import certify as certify_study

    print(certify_study(ROOT, arguments.study, load_config(ROOT, {}).data_folder))


def docs(arguments: Arguments) -> None:
    from effective_lr.document.generate_docs import write

    write()


def parser() -> argparse.ArgumentParser:
    """All subcommands."""
    top = argparse.ArgumentParser(prog="effective_lr", description=(__doc__ or "").splitlines()[0])
    commands = top.add_subparsers(required=True, metavar="command")

    def add(function: Callable[[Arguments], int | None], about: str, *options: str, **typed: Any) -> None:
        """A subcommand; `options` are required texts, `typed` any others, as keywords of add_argument."""
        command = commands.add_parser(function.__name__, help=about, description=about)
        command.set_defaults(function=function)
        for name in options:
            command.add_argument(f"--{name}", required=True)
        for name, how in typed.items():
            command.add_argument(f"--{name.replace('_', '-')}", **how)

    file, flag, text = {"type": Path, "required": True}, {"action": "store_true"}, {"default": ""}
    whole = {"scale": text, "study": {"default": "", "help": "one study; all when it is not given"}}
    speed = {"type": float, "default": 1e13, "help": "floating point operations per second of a GPU"}
    add(plan, "Print what is left to train and how long it takes.", **whole, cores={"type": int, "default": 1},
        gpu_speed=speed)  # fmt: skip
    add(clean, "List finished runs that the present config and code do not use.", **whole, remove=flag)
    add(publish, "Write results/published from a finished scale.", **whole, partial=flag)
    add(reuse, "Put published runs into the run cache of their scale.", **whole)
    add(compare, "Compare a finished scale with its published results.", **whole)
    add(certify, "Check that changed training code gives the same results.", "study")
    add(docs, "Write the generated parts of the documentation.")

    one = {"scale": text, "metrics": text}
    add(prepare, "Prepare a dataset.", "name", folder=file, tensors=file, record=file, optional=flag)
    of_job = {"job": text, "run": text, "runs_hash": text, "code": text}
    add(train, "Train the runs of a job, or one run alone.", "study", **one, **of_job, output=file)
    add(checks, "Evaluate the exact statements of a study in float64.", "study", output=file)
    add(figure, "Draw a figure.", "study", "name", **one, output=file)
    add(chapter, "Write the verdicts, macros and tables of a chapter.", "study", **one)
    add(claim, "Decide on a claim.", "study", "name", **one, output=file)
    add(verdicts, "Draw every test of every claim.", **one, output=file)
    add(paper, "Typeset the paper.", **one)
    add(pages, "Write the pages of a study for the report.", "study", **one)
    add(explore, "Write the explorer of runs, curves and claims.", **one, output=file)
    add(notebook, "Execute a notebook.", "parameters", source=file, executed=file, notebook=file, page=file)
    add(raw, "Copy the raw data files into one folder.", folder=file, into=file)
    return top


def main(words: list[str] | None = None) -> int:
    arguments = parser().parse_args(words)
    try:
        code = arguments.function(arguments) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader has seen enough, as in `... plan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
