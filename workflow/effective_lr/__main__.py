"""The command line: `python -m effective_lr COMMAND`. A mistake of the user ends in one sentence and exit code 1.

A command is a function, and its options are the parameters of that, where the parameter `layout` stands for those that
choose one. Its module is imported when it is called: a job that finds all its runs finished never imports torch.
"""

import os
import signal
import sys

if __name__ == "__main__":
    if sys.flags.optimize > 1:  # docstrings, which it drops, are descriptions and definitions of statistics
        os.environ.pop("PYTHONOPTIMIZE", None)
        os.execv(sys.executable, [sys.executable, "-m", "effective_lr", *sys.argv[1:]])

    def stop(number: int, frame: object) -> None:
        """Ctrl-C while modules are imported, some of which break where it raises an error."""
        print("Stopped.", file=sys.stderr, flush=True)
        os._exit(128 + number)

    signal.signal(signal.SIGINT, stop)
    for stream in (sys.stdout, sys.stderr):  # whatever the locale of the terminal
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]

import importlib
import inspect
from argparse import ArgumentParser
from pathlib import Path

from effective_lr.engine.inputs import Layout
from effective_lr.errors import UserError

ROOT = Path(__file__).parents[2]  # of the repository, where sources and published results are
COMMANDS = {
    # Of the user
    "plan": "engine.plan.plan",
    "publish": "evidence.published.publish",
    "reuse": "evidence.published.reuse",
    "compare": "evidence.published.compare",
    "certify": "engine.certify.certify",
    "docs": "document.generate_docs.write",
    "raw": "prepare.catalog.collect",
    # Jobs of the workflow
    "prepare": "prepare.catalog.prepare",
    "train": "engine.jobs.train_job",
    "checks": "evidence.tidy.write_checks",
    "figure": "document.figures.write_figure",
    "chapter": "document.chapter.write_chapter",
    "claim": "document.chapter.write_claim",
    "verdicts": "document.overview_figures.write_verdicts",
    "paper": "document.overview.write_paper",
    "explore": "document.explorer.write",
    "notebook": "document.execute_notebooks.run",
}


def call(words: list[str]) -> int:
    """Call a command for each study that is chosen, or once where it is about none; print what it returns as text."""
    about = (__doc__ or "").splitlines()[0]
    top = ArgumentParser("effective_lr", description=about, epilog="Each command has its own --help.")
    top.add_argument("command", choices=COMMANDS)
    command = top.parse_args(words[:1]).command
    module, _, name = COMMANDS[command].rpartition(".")
    function = getattr(importlib.import_module(f"effective_lr.{module}"), name)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    parser = ArgumentParser(f"effective_lr {command}", description=inspect.getdoc(function))
    parameters = dict(inspect.signature(function).parameters)
    has_layout = parameters.pop("layout", None) is not None
    has_study = has_layout and parameters.pop("study", None) is not None
    if has_layout:
        for name, what in (("scale", "that of config.yaml"), ("metrics", "that of config.yaml"), ("study", "all")):
            parser.add_argument(f"--{name}", default="", help=f"without it, {what}")
    for name, one in parameters.items():
        option = f"--{name.replace('_', '-')}"
        if one.annotation is bool:
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=one.annotation, default=one.default, required=one.default is one.empty)

    given = vars(parser.parse_args(words[1:]))
    calls = [given]
    if has_layout:
        layout = Layout.load(ROOT, given.pop("study"), scale=given.pop("scale"), metrics=given.pop("metrics"))
        given["layout"] = layout
        calls = [{**given, "study": study} for study in layout.chapters] if has_study else calls
    found = [function(**one) for one in calls]
    for text in found:
        if isinstance(text, str):
            print(text)
    return max((code for code in found if isinstance(code, int)), default=0)


def main(words: list[str] | None = None) -> int:
    try:
        code = call(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader has seen enough, as in `... plan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
