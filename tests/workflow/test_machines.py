"""Other people's machines: what is on them that is not here, and what happens then. A loop holds examples of a kind."""

import ast
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from browser import chromium
from checkouts import Checkout, reasons_of
from effective_lr.document.manuscript import typeset
from effective_lr.engine import grid, machine
from effective_lr.engine.resources import available_megabytes
from effective_lr.engine.validation import read_yaml
from effective_lr.errors import UserError
from effective_lr.prepare import sources
from shared import ROOT

Done = subprocess.CompletedProcess[str]


def run(*command: str | Path, folder: Path, **variables: str) -> Done:
    """A command with the code here and these variables; stdout and stderr in one."""
    given = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), **variables}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, cwd=folder, env=given, encoding="utf-8", errors="replace", **pipes)  # type: ignore[call-overload]


def python(program: str, folder: Path, *options: str, **variables: str) -> str:
    done = run(sys.executable, *options, "-c", program, folder=folder, **variables)
    assert done.returncode == 0, done.stdout
    return done.stdout


# What a killed tool leaves

latex = pytest.mark.skipif(
    not (shutil.which("latexmk") and shutil.which("pdflatex")), reason="needs latexmk with pdflatex"
)
MAIN = r"""\documentclass{article}\usepackage[colorlinks]{hyperref}\begin{document}\section{One}\label{one}
See \ref{one} and \cite{a}. \bibliographystyle{plain}\bibliography{references}\end{document}"""


@latex
def test_a_killed_latex_does_no_harm_to_the_next_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a name that TeX cannot read, and with start-up files of latexmk."""
    folder = tmp_path / "~ 100% #1 ü"
    (folder / "paper").mkdir(parents=True)
    (folder / "build").mkdir()
    (folder / "paper/main.tex").write_text(MAIN)
    (folder / "paper/references.bib").write_text("@article{a, title={T}, author={A}, year=2000, journal={J}}")
    (folder / "latexmkrc").write_text("$pdf_mode = 0; die;\n")
    monkeypatch.chdir(folder)
    typeset(folder / "paper/main.tex", Path("build"))
    for name in ("main.aux", "main.out", "main.bbl", "main.fdb_latexmk"):
        content = Path("build", name).read_bytes()
        Path("build", name).write_bytes(content[: max(len(content) - 60, len(content) // 2)])
        Path("build/main.pdf").unlink()  # as Snakemake does
        typeset(folder / "paper/main.tex", Path("build"))
        assert Path("build/main.pdf").read_bytes().startswith(b"%PDF"), name


@latex
def test_an_old_latex_makes_a_pdf_without_the_mark(tmp_path: Path) -> None:
    text = (ROOT / "paper/main.tex").read_text(encoding="utf-8")
    mark = text[text.index("\\ifwatermark\n  \\pagestyle") : text.index("\\title{")]
    for hook in ("\\let\\AddToHook\\undefined", ""):
        main = rf"\documentclass{{article}}\usepackage{{graphicx,xcolor}}\newif\ifwatermark\watermarktrue{hook}"
        (tmp_path / "main.tex").write_text(
            rf"{main}\newcommand{{\watermarktext}}{{A}}{mark}\begin{{document}}B\end{{document}}"
        )
        typeset(tmp_path / "main.tex", tmp_path)
        assert (tmp_path / "main.pdf").exists()


# Git

COMMIT = "from effective_lr.engine.jobs import commit; print(commit())"


def git(folder: Path, *words: str) -> str:
    person = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    return subprocess.check_output(["git", "-C", folder, *person, *words], encoding="utf-8").strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with the code, its attributes, and one commit; beside it lies `around`, another one."""
    folder = tmp_path_factory.mktemp("git")
    for name in ("around", "repository"):
        shutil.copytree(ROOT / "workflow", folder / name / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
        for file in (".gitattributes", "Makefile", "CITATION.cff"):
            shutil.copy(ROOT / file, folder / name / file)
        git(folder, "init", "--quiet", name)
        git(folder / name, "add", "--all")
        git(folder / name, "commit", "--quiet", "--message", f"The {name}")
    return folder / "repository"


def test_the_commit_is_that_of_this_code_or_unknown_with_the_reason(repository: Path, tmp_path: Path) -> None:
    own, around = git(repository, "rev-parse", "--short=12", "HEAD"), repository.parent / "around"
    archive = around / "archive"
    archive.mkdir()
    git(repository, "archive", f"--output={tmp_path}/archive.tar", "HEAD")
    subprocess.run(["tar", "-xf", tmp_path / "archive.tar", "-C", archive], check=True)
    shutil.copytree(repository, around / "copy", ignore=shutil.ignore_patterns(".git"))
    git(repository, "worktree", "add", "--quiet", str(tmp_path / "worktree"))
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", "shallow")
    for folder, variables, expected, why in [
        (archive, {}, own, ""),
        (tmp_path / "worktree", {}, own, ""),
        (tmp_path / "shallow", {}, own, ""),
        (repository, {"GIT_DIR": str(around / ".git"), "GIT_WORK_TREE": str(around)}, own, ""),  # in a hook
        (repository, {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, own, ""),
        (around / "copy", {}, "unknown", "not a git repository"),
        (repository, {"PATH": "/nowhere"}, "unknown", "No such file or directory: 'git'"),
    ]:
        *lines, found = python(COMMIT, tmp_path, **variables, PYTHONPATH=str(folder / "workflow")).splitlines()
        assert found == expected, folder
        assert len(lines) == bool(why) and all(why in line and "clone" in line for line in lines), lines
    for folder in (archive, around / "copy"):
        done = run("bash", "workflow/capsule.sh", folder=folder)
        assert done.returncode == 1 and len(done.stdout.splitlines()) == 1 and "in a clone" in done.stdout


def test_a_clone_has_the_ends_of_lines_that_shells_read(repository: Path, tmp_path: Path) -> None:
    for name, settings in [("windows", ["core.autocrlf=true"]), ("eol", ["core.eol=crlf", "core.autocrlf=false"])]:
        options = [word for setting in settings for word in ("-c", setting)]
        git(tmp_path, *options, "clone", "--quiet", *options, str(repository), name)
        for file in ("workflow/setup.sh", "Makefile"):
            assert b"\r" not in (tmp_path / name / file).read_bytes(), name


# The user's own settings, HOME, encodings


def test_settings_for_other_programs_reach_no_job(tmp_path: Path) -> None:
    theirs = ["PYTHONPATH", "PYTHONOPTIMIZE", "MPLBACKEND", "MATPLOTLIBRC", "JUPYTER_PATH", "BASH_FUNC_python%%"]
    for home in ("", "/proc/nowhere"):
        jobs = {"HOME": home, "MPLCONFIGDIR": "/proc/nowhere", **dict.fromkeys(theirs, "theirs")}
        line = machine.shield(jobs, tmp_path)
        assert line == "" and "theirs" not in jobs.values() and "MPLCONFIGDIR" not in jobs
        assert os.access(jobs["HOME"] or Path.home(), os.W_OK)
        assert all(str(tmp_path) in jobs[name] for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR"))
    (tmp_path / "texmf").mkdir()
    line = machine.shield({"HOME": str(tmp_path), "BASH_ENV": "x", "SNAKEMAKE_PROFILE": "y"}, tmp_path)
    assert line.startswith("SNAKEMAKE_PROFILE and BASH_ENV and ~/texmf: set by you")


def test_figures_follow_no_matplotlibrc(tmp_path: Path) -> None:
    program = "from effective_lr.document import style; style.use(); print(dict(style.plt.rcParams))"
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\naxes.facecolor: red\nsvg.hashsalt: theirs\n")
    (tmp_path / "empty").mkdir()
    assert python(program, tmp_path) == python(program, tmp_path / "empty")


def test_every_read_and_write_names_its_encoding() -> None:
    unnamed = []
    for path in [
        *(ROOT / "workflow").rglob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
        *(ROOT / "notebooks").rglob("*.py"),
    ]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(call.func, "attr", getattr(call.func, "id", "")) if isinstance(call, ast.Call) else ""
            if name not in ("read_text", "write_text", "open", "run", "check_output"):
                continue
            given = {word.arg: word.value for word in call.keywords}  # type: ignore[attr-defined]
            text = ast.unparse(call)
            is_text = (
                name.endswith("_text") or "text" in given or (name == "open" and text.startswith(("open", "lock.open")))
            )
            if is_text and "encoding" not in given and "'rb'" not in text:
                unnamed.append(f"{path.relative_to(ROOT)}:{call.lineno}: {text}")  # type: ignore[attr-defined]
    assert unnamed == []


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}


def test_commands_read_and_print_the_same_in_every_locale(tmp_path: Path) -> None:
    program = "from pathlib import Path; from effective_lr.engine.contents import load_claims as load\n"
    program += f"print(ascii([load(path) for path in sorted(Path({str(ROOT)!r}, 'paper').glob('*/claims.yaml'))]))"
    assert python(program, tmp_path, **ASCII) == python(program, tmp_path, LC_ALL="C.UTF-8")
    words = ("-m", "effective_lr", "train", "--study", "norms", "--scale", "smoke", "--job", "η", "--output", "x")
    for options in ([], ["-X", "utf8=0"]):
        done = run(sys.executable, *options, *words, folder=tmp_path, **ASCII)
        assert done.returncode == 1 and done.stdout == "η: no such job of norms at the scale smoke\n", options


def test_ctrl_c_ends_a_command_with_one_line(tmp_path: Path) -> None:
    for library in ("pydantic_core", "pyarrow"):  # while the first is imported, and later
        process = subprocess.Popen(
            [sys.executable, "-m", "effective_lr", "compare", "--scale", "study"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        while process.poll() is None and library not in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8"):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == "Stopped.\n" and process.returncode == 130


# Users without a home

VERDICTS = "results/published-study/stability/claims.json"


def test_a_user_without_a_name_and_a_folder_makes_verdicts(fresh: Checkout) -> None:
    words = (VERDICTS, "--config", "metrics=published", "scale=study")
    nameless = ["unshare", "--map-user=4711"]
    nameless = nameless if shutil.which("unshare") and run(*nameless, "true", folder=fresh.root).returncode == 0 else []
    snakemake, home = (
        [*nameless, sys.executable, "-m", "snakemake"],
        dict.fromkeys(("HOME", "MPLCONFIGDIR"), "/proc/none"),
    )
    built = fresh.run(*snakemake, *words, "--cores", "1", **home, LOGNAME="", USER="")
    assert built.returncode == 0 and "mem_mb=" in built.stderr, built.stderr
    shutil.rmtree(fresh.root / ".snakemake")
    assert reasons_of(fresh.dry_run(*words)) == {}


# Values in YAML


def test_numbers_in_yaml_are_those_that_people_read(tmp_path: Path) -> None:
    path = tmp_path / "smoke.yaml"
    path.write_text("seed: [0, 0100, 007, -010, 1_000, -3, 1:40, 0x10, '08', 0.5, .inf]\n")
    expected = [0, 100, 7, -10, 1000, -3, "1:40", "0x10", "08", 0.5, math.inf]
    assert read_yaml(path, "keys")["seed"] == expected


def test_names_of_scales_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("my try", "published", "data", "{x}", "published-study", "../up", "-x", "a.b", "checks", "naïve"):
        with pytest.raises(UserError, match=r"config: scale = '.*give its file another"):
            grid.load_config(ROOT, {"scale": name})
    assert grid.load_config(ROOT, {"scale": "NAME_2-b"}).results == "NAME_2-b"
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in ("~/x", "$HOME/x", "${HOME}/x"):
        assert grid.load_config(ROOT, {"data_folder": folder}).data_folder == str(tmp_path / "x")


# Data portals


def test_another_file_from_a_portal_is_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.delenv(sources.FOLDER_VARIABLE, raising=False)
    for content in (b"<html>Please log in</html>", b"\x1f\x8b another build", b""):
        monkeypatch.setattr(sources, "download", lambda source, content=content: content)
        for source in (sources.COOLING_LOAD, sources.GOLUB_38, *sources.FASHION_MNIST.values()):
            with pytest.raises(sources.Missing, match=f"{len(content)} bytes with sha256 .*{source.sha256}"):
                sources.obtain(source, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# Memory, containers


def test_memory_is_that_which_the_control_group_allows(tmp_path: Path) -> None:
    whole = available_megabytes(tmp_path)
    assert whole > 500
    for line, file in [
        ("0::/\n", "memory.max"),  # a container
        ("0::/user.slice/a.scope\n", "user.slice/memory.max"),  # a limit further up
        ("5:cpu:/x\n4:memory:/docker/1\n", "memory/docker/1/memory.limit_in_bytes"),
    ]:
        root = tmp_path / file.replace("/", "-")
        for path, text in [(root / "proc/self/cgroup", line), (root / "sys/fs/cgroup" / file, f"{300 * 2**20}\n")]:
            path.parent.mkdir(parents=True)
            path.write_text(text)
        assert available_megabytes(root) == 300
        (root / "sys/fs/cgroup" / file).write_text("max\n")
        assert available_megabytes(root) == whole


# Pages


def test_the_explorer_in_an_old_browser_is_a_sentence(tmp_path: Path) -> None:
    text = (ROOT / "workflow/effective_lr/document/explorer.html").read_text(encoding="utf-8")
    for name, script, shown in [
        ("old", "delete window.DecompressionStream", "Firefox 113"),
        ("cut", "", "make explore"),
    ]:
        page = tmp_path / f"{name}.html"
        page.write_text(text.replace("<script>", f"<script>{script};", 1), encoding="utf-8")
        with chromium() as browser:
            browser.get(page.as_uri())
            browser.implicitly_wait(20)
            assert shown in browser.find_element("css selector", "header [role=alert]").text
