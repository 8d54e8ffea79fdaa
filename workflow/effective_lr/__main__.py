"""The command line: `python -m effective_lr --help`. A mistake that the user can mend is one sentence and exit code 1.

Modules are imported where they are needed: a job that finds all its runs finished never imports torch.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effective_lr.errors import UserError

ROOT = Path(__file__).parents[2]  # of the repository, where sources and published results are
RESULTS = Path("results")  # in the working directory, where all that is made lies
Arguments = argparse.Namespace


def prepare(arguments: Arguments) -> None:
    from effective_lr.prepare.prepared import write

    print(write(arguments.name, arguments.folder, arguments.tensors, arguments.record, arguments.optional))


def raw(arguments: Arguments) -> None:
    from effective_lr.prepare.raw import collect

    print(collect(arguments.folder, arguments.into))


def train(arguments: Arguments) -> int:
    from effective_lr.engine.jobs import Options, RunCache, recorded, train_shard
    from effective_lr.engine.study import load

    study = load(arguments.study)
    runs = [study.run(**settings) for settings in json.loads(arguments.runs)]
    data = (arguments.tensors, arguments.record) if arguments.record else None
    cache = RunCache(arguments.cache, arguments.code, recorded(arguments.record, "sha256") if data else "")
    # These come by the environment, so that Snakemake does not compare them: they change no result.
    given = os.environ
    options = Options(
        device=given.get("EFFECTIVE_LR_DEVICE", "auto"),
        gpu_slots=int(given.get("EFFECTIVE_LR_GPU_SLOTS", "1")),
        checkpoint_seconds=float(given.get("EFFECTIVE_LR_CHECKPOINT_SECONDS", "60")),
        retrain=bool(given.get("EFFECTIVE_LR_RETRAIN")),
    )
    return train_shard(study, runs, cache, data, arguments.output, options)


def checks(arguments: Arguments) -> None:
    import pandas as pd

    from effective_lr.engine.study import load

    rows = load(arguments.study).find("checks", "rows")  # a study need not have any
    table = pd.DataFrame(rows() if rows else [], columns=["check", "subject", "holds", "value", "seed"])
    table.to_parquet(arguments.output, index=False)
    print(table.groupby(["check", "subject"], sort=False)["value"].agg(["min", "max"]).to_string())


def gather(arguments: Arguments) -> None:
    from effective_lr.engine.study import load
    from effective_lr.evidence import tidy

    gathered = tidy.gather(load(arguments.study), arguments.shards, json.loads(arguments.run_ids))
    gathered.metrics.to_parquet(arguments.metrics, index=False)
    gathered.runs.to_parquet(arguments.runs, index=False)


def claim(arguments: Arguments) -> None:
    import pandas as pd

    from effective_lr.engine.contents import Claim
    from effective_lr.engine.study import load
    from effective_lr.evidence import verdicts
    from effective_lr.evidence.tidy import Tables

    evidence = verdicts.Evidence(Tables(arguments.tables), pd.read_parquet(arguments.checks))
    stated = Claim(**json.loads(arguments.claim))
    result = verdicts.decide(arguments.name, stated, evidence, verdicts.statistics_of(load(arguments.study)))
    write_json(result, arguments.output)
    print(verdicts.tell(result))


def figure(arguments: Arguments) -> None:
    from effective_lr.document.figures import draw
    from effective_lr.engine.study import load
    from effective_lr.evidence.tidy import Tables

    draw(load(arguments.study), arguments.name, Tables(arguments.tables), arguments.pdf, arguments.png)


def results_of(arguments: Arguments) -> Any:
    """What tables and numbers are made of."""
    import pandas as pd

    from effective_lr.document.table import Results
    from effective_lr.engine.study import load
    from effective_lr.evidence.tidy import Tables

    claims = {path.stem: json.loads(path.read_text()) for path in arguments.claims}
    found = pd.concat([pd.read_parquet(path) for path in arguments.checks] or [pd.DataFrame()])
    measured = [json.loads(path.read_text()) for path in arguments.file]
    published = {path.name.split(".")[0]: json.loads(path.read_text()) for path in arguments.published}
    return Results(
        study=load(arguments.study),
        tables=Tables(arguments.tables),
        claims=claims,
        checks=found,
        measured=measured[0] if measured else None,
        scale=arguments.scale,
        published=published,
    )


def table(arguments: Arguments) -> None:
    from effective_lr.document import shared_tables
    from effective_lr.document.report import table_page

    results = results_of(arguments)
    make = results.study.find("tables", arguments.name) or getattr(shared_tables, arguments.name, None)
    if make is None:
        raise UserError(f"{arguments.name}: no function of that name in the tables.py of {arguments.study}; add it")
    made = make(results)
    arguments.latex.write_text(made.latex())
    arguments.html.write_text(table_page(made, arguments.title, arguments.caption))


def numbers(arguments: Arguments) -> None:
    from effective_lr.document.numbers import all_numbers, to_latex

    found = all_numbers(results_of(arguments), arguments.scale)
    arguments.output.write_text(to_latex(arguments.study, found, json.loads(arguments.captions)))


def frame(arguments: Arguments) -> None:
    from effective_lr.document.frame import write

    counts = json.loads(arguments.runs)
    write(ROOT, arguments.studies, arguments.claims, counts, arguments.scale, arguments.watermark, arguments.build)


def pdf(arguments: Arguments) -> None:
    from effective_lr.document.manuscript import require_known_numbers, typeset

    require_known_numbers(ROOT / "paper", arguments.studies, arguments.build, ROOT)
    typeset(ROOT / "paper" / "main.tex", arguments.build)


def page(arguments: Arguments) -> None:
    from effective_lr.document import report

    if arguments.kind == "claims":
        decided = {path.stem: json.loads(path.read_text()) for path in arguments.input}
        arguments.output.write_text(report.claims_to_html(decided))
    else:
        import pandas as pd

        runs = [pd.read_parquet(path) for path in arguments.input if path.name.endswith(".runs.parquet")]
        runs = [table for table in runs if len(table)]
        arguments.output.write_text(report.provenance_to_html(pd.concat(runs).drop_duplicates("run_id")))


def crate(arguments: Arguments) -> None:
    from effective_lr.document.crate import write
    from effective_lr.engine.grid import Config

    config = Config(**json.loads(arguments.config))
    print(write(ROOT, config, arguments.agent, arguments.given, arguments.made, arguments.output))


def explore(arguments: Arguments) -> None:
    from effective_lr.document.explorer import write
    from effective_lr.engine.contents import load_chapters
    from effective_lr.engine.grid import load_config

    chapters = load_chapters(ROOT, load_config({"scale": arguments.scale, "metrics": arguments.metrics}))
    tables = {name: [path for path in arguments.tables if path.parent.parent.name == name] for name in chapters}
    claims: dict[str, dict[str, Any]] = {name: {} for name in chapters}
    for path in arguments.claims:
        claims[path.parent.parent.name][path.stem] = json.loads(path.read_text())
    pictures = {path.parent.name: path for path in arguments.pictures}
    kind = "published results" if arguments.metrics == "published" else "own results"
    write(chapters, tables, claims, pictures, f"{kind}, scale {arguments.scale}", arguments.output)


def notebook(arguments: Arguments) -> None:
    from effective_lr.document.notebooks import run

    parameters = json.loads(arguments.parameters)
    print(run(arguments.source, parameters, arguments.executed, arguments.notebook, arguments.page))


def chosen(arguments: Arguments, metrics: str = "recompute") -> Any:
    """The config for a scale, its chapters by name, and those of the study where one is asked for."""
    from effective_lr.engine.contents import load_chapters
    from effective_lr.engine.grid import load_config

    config = load_config({"scale": arguments.scale or None, "metrics": metrics or "recompute"})
    chapters = load_chapters(ROOT, config)
    if arguments.study and arguments.study not in chapters:
        raise UserError(f"STUDY = '{arguments.study}': expected one of {', '.join(chapters)}")
    return config, chapters, [chapter for name, chapter in chapters.items() if arguments.study in ("", name)]


def each_chapter(arguments: Arguments, metrics: str = "recompute") -> Any:
    """The scale and its chapters; the one of a study where that is asked for."""
    config, _, chapters = chosen(arguments, metrics)
    return config.scale_name, chapters


def plan(arguments: Arguments) -> None:
    from effective_lr.engine import plan as plans
    from effective_lr.engine.jobs import duration

    scale, chapters = each_chapter(arguments)
    total, left = 0.0, {}  # seconds, and what is left of each study
    for chapter in chapters:
        gpu = plans.gpu_speed(chapter.study, arguments.gpu_speed)
        where = RESULTS / scale / chapter.name, RESULTS / "data"
        text, seconds = plans.plan(chapter, *where, arguments.cores, gpu)
        if arguments.json:
            left[chapter.name] = plans.work(chapter.study, plans.unfinished(chapter, *where))
        total += seconds
        print(f"{text}\n")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_json({"scale": scale, "studies": left}, arguments.json)
    if len(chapters) > 1:
        print(f"{scale}, all studies: about {duration(total / arguments.cores)} with {arguments.cores} jobs at a time.")


def why(arguments: Arguments) -> None:
    from effective_lr.document.manuscript import scan
    from effective_lr.engine import why as reasons

    config, chapters, _ = chosen(arguments, arguments.metrics)
    placed = scan(ROOT / "paper", list(chapters), ROOT)
    numbered = {
        number: (one.study, one.item) for kind in ("figure", "table") for number, one in placed.numbered(kind).items()
    }
    resting = reasons.experiments_of(chapters, numbered, arguments.target)
    count, total, lines = 0, 0, []
    for name, experiments in resting.items():
        wanted = chapters[name].runs_of(experiments)
        total += len(wanted)
        if config.metrics == "published":
            continue  # which trains nothing
        results = RESULTS / config.scale_name / name
        to_train, told = reasons.tell_runs(ROOT, chapters[name], wanted, results, RESULTS / "data")
        count += to_train
        lines += [f"{name}:", *told] if told else []
    of_target = f" for {arguments.target}" if arguments.target else ""
    print("\n".join([f"{count} of {total} runs to train{of_target}", *lines]), flush=True)
    jobs = reasons.tell_jobs(arguments.target, [f"scale={config.scale_name}", f"metrics={config.metrics}"])
    print("\n".join(["", "jobs of Snakemake:", *jobs] if jobs else ["and nothing to make again"]))


def trace(arguments: Arguments) -> None:
    from effective_lr.document.trace import trace as trace_of

    config, chapters, asked = chosen(arguments, arguments.metrics)
    print(trace_of(ROOT, chapters, [chapter.name for chapter in asked], config, arguments.number))


def runs(arguments: Arguments) -> None:
    from effective_lr.engine.contents import published_table
    from effective_lr.evidence import runs as questions

    config, _, chapters = chosen(arguments, arguments.metrics)
    asked = questions.conditions(arguments.where)
    tables = {
        chapter.name: questions.published(chapter, published_table(ROOT, chapter.name, config.scale_name))
        if config.metrics == "published"
        else questions.finished(chapter, RESULTS / config.scale_name / chapter.name, RESULTS / "data")
        for chapter in chapters
    }
    studies = [chapter.study for chapter in chapters]
    print(questions.answer(studies, tables, asked, arguments.csv, arguments.tensorboard))


def watch(arguments: Arguments) -> None:
    from effective_lr.engine.watch import watch as watch_scale

    scale, chapters = each_chapter(arguments)
    watch_scale(chapters, RESULTS / scale, RESULTS / "data", arguments.once)


def clean(arguments: Arguments) -> None:
    from effective_lr.engine.plan import clean as clean_of

    scale, chapters = each_chapter(arguments)
    for chapter in chapters:
        print(clean_of(chapter, RESULTS / scale / chapter.name, RESULTS / "data"))


def publish(arguments: Arguments) -> None:
    from effective_lr.evidence.published import publish as publish_of

    scale, chapters = each_chapter(arguments)
    for chapter in chapters:
        print(publish_of(ROOT, chapter, scale, arguments.partial))


def reuse(arguments: Arguments) -> None:
    from effective_lr.engine.contents import published_table
    from effective_lr.evidence.published import reuse as reuse_of

    scale, chapters = each_chapter(arguments, "published")
    for chapter in chapters:
        print(reuse_of(published_table(ROOT, chapter.name, scale), RESULTS / scale / chapter.name))


def push(arguments: Arguments) -> int:
    return copy_runs(arguments, str(RESULTS), arguments.to)


def pull(arguments: Arguments) -> int:
    return copy_runs(arguments, vars(arguments)["from"], str(RESULTS))


def copy_runs(arguments: Arguments, source: str, target: str) -> int:
    from effective_lr.engine.exchange import copy_runs as copy

    scale, chapters = each_chapter(arguments)
    text, all_whole = copy(source, target, scale, [chapter.study for chapter in chapters])
    print(text)
    return 0 if all_whole else 1


def compare(arguments: Arguments) -> int:
    from effective_lr.evidence.comparison import compare_with_published

    scale, chapters = each_chapter(arguments, "published")
    all_agree = True
    for chapter in chapters:
        text, agree = compare_with_published(ROOT, chapter, scale)
        all_agree &= agree
        print(f"{text}\n")
    return 0 if all_agree else 1


def run(arguments: Arguments) -> int:
    from effective_lr.engine.alone import run as run_alone

    return run_alone(arguments.words)


def certify(arguments: Arguments) -> None:
    from effective_lr.engine.certify import certify as certify_study

    print(certify_study(ROOT, arguments.study))


def pages(arguments: Arguments) -> None:
    from effective_lr.document.pages import write

    write()


def write_json(content: Any, path: Path) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def parser() -> argparse.ArgumentParser:
    """All subcommands. Those below the line are the workflow's own."""
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

    file, files = {"type": Path, "required": True}, {"type": Path, "nargs": "*", "default": []}
    scale, one_study = {"default": ""}, {"default": "", "help": "one study; all when it is not given"}
    whole = {"scale": scale, "study": one_study}
    add(
        plan, "Print what is left to train and how long it takes.", **whole, cores={"type": int, "default": 1},
        gpu_speed={"type": float, "default": 0.0, "help": "operations per second of a GPU, in place of those measured"},
        json={"type": Path, "help": "write what is left, for benchmarks/gpu.py"},
    )  # fmt: skip
    metrics = {"default": "", "help": "published: ask the committed results"}
    add(
        why,
        "Print what would be made again, and what changed.",
        **whole,
        metrics=metrics,
        target={"default": "", "help": "a figure, a table, a claim or a study; all when it is not given"},
    )
    add(trace, "Print where a number of the paper comes from.", "number", **whole, metrics=metrics)
    add(
        runs,
        "Print the finished runs of which a question holds.",
        **whole,
        metrics=metrics,
        where={"default": "", "help": "such as 'optimizer=adam lr<0.01'"},
        csv={"default": "", "help": "a file for all that is known of these runs"},
        tensorboard={"default": "", "help": "a folder for event files of all that they measured"},
    )
    add(
        watch,
        "Show in a terminal what is training now.",
        **whole,
        once={"action": "store_true", "help": "print it once, and end"},
    )
    add(clean, "Remove trained runs that the present config and code cannot use.", **whole)
    add(
        publish,
        "Write results/published from a finished scale.",
        **whole,
        partial={"action": "store_true", "help": "publish what is finished"},
    )
    add(reuse, "Put published runs into the run cache of their scale.", **whole)
    add(push, "Copy finished runs to a folder, host:folder or URL.", "to", **whole)
    add(pull, "Copy finished runs from a folder, host:folder or URL.", "from", **whole)
    add(compare, "Put a finished scale beside its published results.", **whole)
    add(certify, "Prove that changed training code gives the same results.", "study")
    commands.add_parser("run", help="Run Snakemake, alone in this folder; the arguments are Snakemake's.")
    add(pages, "Write the generated pages of the documentation.")

    flag = {"action": "store_true"}
    add(prepare, "Prepare a dataset.", "name", folder=file, tensors=file, record=file, optional=flag)
    add(raw, "Copy the raw data files into one folder.", folder=file, into=file)
    add(
        train, "Train the runs of a shard.", "study", "runs", "code",
        tensors={"type": Path}, record={"type": Path}, cache=file, output=file,
    )  # fmt: skip
    add(checks, "Try the exact statements of a study in float64.", "study", output=file)
    add(gather, "Gather an experiment into tidy tables.", "study", "run-ids", shards=files, metrics=file, runs=file)
    add(claim, "Decide on a claim.", "study", "name", "claim", checks=file, tables=files, output=file)
    add(figure, "Draw a figure.", "study", "name", tables=files, pdf=file, png=file)
    made_of = {"tables": files, "claims": files, "checks": files, "published": files, "file": files}
    add(table, "Write a table.", "study", "name", "title", "caption", "scale", **made_of, latex=file, html=file)
    add(numbers, "Write the numbers of a chapter's sentences.", "study", "scale", "captions", **made_of, output=file)
    studies = {"nargs": "+", "required": True}
    add(
        frame,
        "Write what the paper's frame shows.",
        "runs",
        "scale",
        "watermark",
        studies=studies,
        claims=files,
        build=file,
    )
    add(pdf, "Typeset the paper.", studies=studies, build=file)
    add(page, "Write a page of the report.", "kind", input=files, output=file)
    add(crate, "Bundle a run as an RO-Crate.", "config", "agent", given=files, made=files, output=file)
    of_all = {"tables": files, "claims": files, "pictures": files}
    add(explore, "Write the explorer of runs, curves and claims.", "scale", "metrics", **of_all, output=file)
    add(
        notebook, "Execute a notebook.", "parameters",
        source=file, executed=file, notebook=file, page=file,
    )  # fmt: skip
    return top


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    is_snakemake = words[:1] == ["run"]  # what follows may begin with an option, which argparse does not pass on
    arguments = Arguments(function=run, words=words[1:]) if is_snakemake else parser().parse_args(words)
    try:
        code = arguments.function(arguments) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader has seen enough, as in `… plan | head`; what was to be done may not be
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
