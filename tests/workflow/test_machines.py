"""Other people's machines: what is on them that is not here, and what happens then. A loop holds examples of a kind."""

import errno
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from browser import chromium
from checkouts import Checkout
from effective_lr.document.manuscript import typeset
from effective_lr.engine import grid, machine, plan
from effective_lr.engine.resources import available_megabytes
from effective_lr.engine.validation import read_yaml
from effective_lr.errors import UserError
from effective_lr.prepare import sources
from shared import ROOT, make_run


def python(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python with the code here, or that of the variables; stdout and stderr in one."""
    given = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), **variables}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=given, **pipes)


# Programs

MAIN = r"""\documentclass{article}\usepackage[colorlinks]{hyperref}\begin{document}\section{One}\label{one}
See \ref{one} and \cite{a}. \bibliographystyle{plain}\bibliography{references}\end{document}"""


needs_latex = pytest.mark.skipif(
    not (shutil.which("latexmk") and shutil.which("pdflatex")), reason="needs latexmk with pdflatex"
)


@needs_latex
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


@needs_latex
def test_an_old_latex_makes_a_pdf_without_the_mark(tmp_path: Path) -> None:
    text = (ROOT / "paper/main.tex").read_text(encoding="utf-8")
    mark = text[text.index("\\ifwatermark\n  \\pagestyle") : text.index("\\title{")]
    main = (
        r"\documentclass{article}\usepackage{graphicx,xcolor}\newif\ifwatermark\watermarktrue\let\AddToHook\undefined"
    )
    main += rf"\newcommand{{\watermarktext}}{{A}}{mark}\begin{{document}}B\end{{document}}"
    (tmp_path / "main.tex").write_text(main)
    typeset(tmp_path / "main.tex", tmp_path)
    assert (tmp_path / "main.pdf").exists()


def test_the_explorer_in_an_old_browser_is_a_sentence(tmp_path: Path) -> None:
    text = (ROOT / "workflow/effective_lr/document/explorer.html").read_text(encoding="utf-8")
    old = text.replace("<script>", "<script>delete window.DecompressionStream;", 1)
    (tmp_path / "old.html").write_text(old, encoding="utf-8")
    with chromium() as browser:
        browser.get((tmp_path / "old.html").as_uri())
        browser.implicitly_wait(20)
        assert "Firefox 113" in browser.find_element("css selector", "header [role=alert]").text


def git(folder: Path, *words: str) -> str:
    person = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    return subprocess.check_output(["git", "-C", folder, *person, *words], encoding="utf-8").strip()


def test_the_commit_is_that_of_this_code_or_unknown_with_the_reason(tmp_path: Path) -> None:
    """Of a repository, an archive of it, and a copy without history in another repository."""
    own, around = tmp_path / "own", tmp_path / "around"
    for folder in (own, around):
        shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / ".gitattributes", folder)
        git(tmp_path, "init", "--quiet", str(folder))
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", folder.name)
    git(own, "archive", f"--output={tmp_path}/archive.tar", "HEAD")
    (around / "archive").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "archive.tar", "-C", around / "archive"], check=True)
    shutil.copytree(own, around / "copy", ignore=shutil.ignore_patterns(".git"))
    commit = git(own, "rev-parse", "--short=12", "HEAD")
    for folder, variables, expected, why in [
        (around / "archive", {}, commit, ""),
        (own, {"GIT_DIR": str(around / ".git"), "GIT_WORK_TREE": str(around)}, commit, ""),  # in a hook
        (own, {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, commit, ""),
        (around / "copy", {}, "unknown", "not a git repository"),
        (own, {"PATH": "/nowhere"}, "unknown", "No such file or directory: 'git'"),
    ]:
        variables["PYTHONPATH"] = str(folder / "workflow")
        done = python(
            "-c", "from effective_lr.engine.jobs import commit; print(commit())", folder=tmp_path, **variables
        )
        *lines, found = done.stdout.splitlines()
        assert found == expected, folder
        assert len(lines) == bool(why) and all(why in line and "clone" in line for line in lines), lines
    for folder in (around / "archive", around / "copy"):
        refused = subprocess.run(["bash", "workflow/capsule.sh"], cwd=folder, capture_output=True, text=True)
        assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and "in a clone" in refused.stderr
    settings = ("-c", "core.autocrlf=true", "-c", "core.eol=crlf")  # a shell stops at a carriage return
    git(tmp_path, *settings, "clone", "--quiet", str(own), "windows")
    assert b"\r" not in (tmp_path / "windows/workflow/setup.sh").read_bytes()


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
    drawn = python("-c", program, folder=tmp_path)
    assert drawn.returncode == 0 and drawn.stdout == python("-c", program, folder=tmp_path / "empty").stdout


def test_commands_read_and_print_the_same_in_every_locale(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    program = "from pathlib import Path; from effective_lr.engine.contents import load_claims as load\n"
    program += f"print(ascii([load(path) for path in sorted(Path({str(ROOT)!r}, 'paper').glob('*/claims.yaml'))]))"
    read = python("-c", program, folder=tmp_path, **ascii_only)
    assert read.returncode == 0 and read.stdout == python("-c", program, folder=tmp_path, LC_ALL="C.UTF-8").stdout
    words = ("-m", "effective_lr", "train", "--study", "norms", "--scale", "smoke", "--job", "η", "--output", "x")
    for options in ([], ["-OO"], ["-X", "utf8=0"]):
        done = python(*options, *words, folder=tmp_path, **ascii_only)
        assert done.returncode == 1 and done.stdout == "η: no such job of norms at the scale smoke\n", options


def test_ctrl_c_ends_a_command_with_one_line(tmp_path: Path) -> None:
    for library in ("pydantic_core", "pyarrow"):  # while libraries are imported, and later
        process = subprocess.Popen(
            [sys.executable, "-m", "effective_lr", "compare", "--scale", "study"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and library not in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8"):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == "Stopped.\n" and process.returncode == 130


# Clocks and copies


def test_times_ahead_of_the_clock_are_set_to_now(tmp_path: Path) -> None:
    for name, seconds in [("a", time.time() + 172_800), ("b", time.time() + 172_801), ("old", 1e9)]:
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (seconds, seconds))
    assert str(tmp_path) in machine.correct_times([tmp_path, tmp_path / "gone"], time.time())
    times = sorted(path.stat().st_mtime for path in tmp_path.iterdir())
    assert times[0] == 1e9 and times[2] <= time.time()
    assert machine.correct_times([tmp_path], time.time()) == ""


def test_a_verdict_by_another_rule_is_made_again_whatever_the_metadata_say(fresh: Checkout) -> None:
    """As after a copy without .snakemake, with results newer than claims.yaml. They were made by a user without a name
    and a folder, from a source of the future."""
    words = ("results/published-study/stability/claims.json", "--config", "metrics=published", "scale=study")
    os.utime(fresh.root / "paper/stability/claims.yaml", (4e9, 4e9))  # builds all the same
    nameless = ["unshare", "--map-user=4711"]
    can_hide = shutil.which("unshare") and fresh.run(*nameless, "true").returncode == 0
    snakemake = [*(nameless if can_hide else []), sys.executable, "-m", "snakemake", *words, "--cores", "1"]
    built = fresh.run(*snakemake, HOME="/proc/none", MPLCONFIGDIR="/proc/none", LOGNAME="", USER="")
    assert built.returncode == 0 and "mem_mb=" in built.stdout, built.stdout
    shutil.rmtree(fresh.root / ".snakemake")
    assert fresh.planned(*words) == {}
    theirs = (fresh.root / words[0]).with_name("claims.yaml")
    theirs.write_text("S1: another rule")  # as where the results were copied from, all of which are newer
    os.utime(theirs, (1e9, 1e9))
    assert fresh.planned(*words).keys() == {"chapter"}


# What people write


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


# What a system gives


def test_another_file_from_a_portal_is_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.delenv(sources.FOLDER_VARIABLE, raising=False)
    for content in (b"<html>Please log in</html>", b"\x1f\x8b another build", b""):
        monkeypatch.setattr(sources, "download", lambda source, content=content: content)
        for source in (sources.COOLING_LOAD, sources.GOLUB_38, *sources.FASHION_MNIST.values()):
            with pytest.raises(sources.Missing, match=f"{len(content)} bytes with sha256 .*{source.sha256}"):
                sources.obtain(source, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


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


def test_speed_is_measured_without_shared_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*words: object, **options: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(plan, "measure", lambda name, runs: [2.0])
    monkeypatch.setattr(plan, "ProcessPoolExecutor", refuse)
    assert plan.measure_at_once("norms", [make_run()], 4) == [[2.0]]
    assert "/dev/shm" in capsys.readouterr().out
