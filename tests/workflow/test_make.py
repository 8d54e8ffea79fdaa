"""`make` on machines that lack something, and the agreement of the files that name dependencies.

Stubs on PATH play the machine and log how they are called; no test installs anything.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from shared import ROOT

MAKE = shutil.which("make") or "make"
TOOLS = "bash basename cat chmod dirname env flock grep head id ls mkdir nproc rm sed sha256sum tee touch"
# The stubs behave well, except for what the variables of a test name as broken.
STUBS = {
    "python3": """
        case "$*" in
            *version_info*) [ "$BROKEN" = python ] && minor=10 || minor=11
                "$REAL_PYTHON" -IS -c "import sys; sys.version_info = (3, $minor, 2); $2" ;;
            *get_platform*) echo cpython-311 linux-x86_64 ;;
            --version) echo Python 3.10.2 ;;
            *sys.prefix*) echo "${0%/bin/*}" ;;
            *ensurepip*) [ "$BROKEN" != ensurepip ] ;;
            "-m venv "*) mkdir -p "$3/bin"; cat "$0" | tee "$3/bin/pip" >"$3/bin/python"
                echo "# $PWD/$3" >>"$3/bin/pip"
                chmod +x "$3/bin/pip" "$3/bin/python" ;;
            *"pip install"*) [ "$BROKEN" != install ] ;;
            "-m snakemake "*) shift 2; exec snakemake "$@" ;;
            "-Ic import "*) [ "$BROKEN" != import ] ;;
        esac""",
    "id": 'echo "${WHO/sudoer/1000}"',
    "sudo": '[ "$WHO" = sudoer ] && shift && "$@"',
    "apt-get": """
        echo "apt-get at work"
        case "$BROKEN" in dataset) [[ "$*" != *dataset* ]] ;; lists) [ "$1" != update ] ;; esac""",
    "find": '[ "$BROKEN" = dataset ] || echo data/train-images-idx3-ubyte.gz',
    "snakemake": '[ "$1" = --unlock ] || echo paper/build/laptop >.snakemake/build; exit ${SNAKEMAKE_CODE:-0}',
    **dict.fromkeys(
        ("ruff", "mypy", "snakefmt", "pytest", "jupyter", "jupytext-config", "latexmk", "pdflatex", "kpsewhich"), ""
    ),
}


@dataclass
class Machine:
    """A checkout in a temporary folder, on a machine that has the stubs and nothing else."""

    root: Path

    def run(
        self, *command: str, who: str = "1000", broken: str = "", cwd: str = ".", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as `who`: root ("0"), a "sudoer", or another user id."""
        (self.root / "calls").write_text("")
        machine = {"PATH": str(self.root / "bin"), "CALLS": str(self.root / "calls"), "REAL_PYTHON": sys.executable}
        environment = {**machine, "LC_ALL": "C", "WHO": who, "BROKEN": broken, **variables}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.run(command, cwd=self.root / cwd, env=environment, text=True, **pipes)  # type: ignore[call-overload]

    def make(self, *words: str, fails: bool = False, **variables: str) -> str:
        """What make prints."""
        done = self.run(MAKE, *words, **variables)
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def calls(self, program: str = "") -> list[str]:
        """The calls of the last make, of all stubs or one."""
        return [call for call in (self.root / "calls").read_text().splitlines() if call.startswith(program)]

    def sh(self, script: str) -> None:
        """Change something in the checkout, with the programs of the real machine."""
        subprocess.run(["bash", "-euc", script], cwd=self.root, check=True)

    def stub(self, name: str, body: str) -> None:
        path = self.root / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!{shutil.which('bash')}\n{body}\n")
        path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.sh("mkdir bin; echo torch==2.0 >requirements.lock; echo pytest==9.0 >requirements-dev.lock")
    for file in ("Makefile", "workflow/setup.sh", "tests/lint.sh", ".ci/run"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    for tool in TOOLS.split():
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is missing"))
    for name, body in STUBS.items():
        machine.stub(name, f'echo "{name} $*" >>"$CALLS"\n{body}')
    return machine


INSTALL = "python3 -m pip install --disable-pip-version-check --require-hashes -r"


def test_make_sets_up_what_the_paper_needs_and_builds(machine: Machine) -> None:
    printed = machine.make()
    assert machine.calls("python3 -m")[:2] == ["python3 -m venv .venv", f"{INSTALL} requirements.lock"]
    assert machine.calls()[-1] == "snakemake --cores all"
    assert printed.splitlines()[-1] == "The paper: paper/build/laptop/main.pdf"
    assert "main.pdf" not in machine.make(SNAKEMAKE_CODE="1", fails=True)


def test_targets(machine: Machine) -> None:
    (machine.root / "notebooks").mkdir()  # it is not what `make notebooks` makes
    program = "python3 -m effective_lr"
    expected = {
        "figure_2": "snakemake figure_2 --cores all",
        "table_1 SCALE=smoke CORES=3": "snakemake table_1 --cores 3 --config scale=smoke",
        "only ITEM=plane METRICS=published": "snakemake plane --cores all --config metrics=published",
        "notebooks": "snakemake notebooks --cores all",
        "explore SCALE=study METRICS=published": "snakemake explore --cores all --config scale=study metrics=published",
        "report": "snakemake report --report paper/build/laptop/report.html --cores 1",
        "plan STUDY=norms CORES=2": f"{program} plan --cores 2 --scale  --metrics recompute --study norms",
        "compare SCALE=study": f"{program} compare --scale study --metrics recompute --study ",
        "reuse-published": f"{program} reuse --scale  --metrics recompute --study ",
        "publish SCALE=study": f"{program} publish --scale study --metrics recompute --study ",
        "certify SCALE=smoke": f"{program} certify --scale smoke --metrics recompute --study ",
        "docs": f"{program} docs",
        "test-slow": "pytest -m slow",
        "lab": "jupyter lab --LabApp.default_url=/lab/tree/notebooks",
    }
    for words, call in expected.items():
        machine.make(*words.split())
        assert machine.calls()[-1].strip() == call.strip(), words
    for words in ("notebooks", "report", "docs", "test-slow"):  # what more they need was installed by the first of them
        (machine.root / ".venv/requirements-dev.lock.sha256").unlink()
        machine.make(words)
        assert machine.calls("python3 -m pip") == [f"{INSTALL} requirements-dev.lock"], words


def test_ci_runs_make_test_with_the_linters_of_each_commit(machine: Machine) -> None:
    (machine.root / "bin" / "make").symlink_to(MAKE)
    assert machine.run("../.ci/run", cwd="bin").returncode == 0
    calls = machine.calls()
    assert [call for call in calls if call.startswith("pytest") and "not slow" in call]
    for hook in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]:
        assert [call for call in calls if call.startswith(hook["entry"])], hook
    for program in ("ruff", "pytest"):  # either fails the test
        machine.stub(program, "exit 1")
        assert machine.run("../.ci/run", cwd="bin").returncode != 0
        machine.stub(program, "")


def test_a_run_that_was_killed_leaves_a_mark_and_the_next_one_frees_the_lock(machine: Machine) -> None:
    def unlocked(code: int) -> bool:
        machine.make(SNAKEMAKE_CODE=str(code), fails=code != 0)
        return "snakemake --unlock" in machine.calls()

    assert [unlocked(code) for code in (0, 1, 137, 137, 0, 0)] == [False, False, False, True, True, False]


def test_a_lock_is_installed_again_only_when_its_contents_change_or_it_was_interrupted(machine: Machine) -> None:
    paper, development = f"{INSTALL} requirements.lock", f"{INSTALL} requirements-dev.lock"
    for change, broken, expected in [
        ("true", "", [paper, development]),
        ("touch -d tomorrow *.lock", "", []),
        ("echo torch==2.1 >requirements.lock", "", [paper]),
        ("echo pytest==9.1 >requirements-dev.lock", "", [development]),
        ("echo torch==2.2 >requirements.lock", "install", [paper]),
        ("echo torch==2.1 >requirements.lock", "", [paper]),  # as the last stamp had it
    ]:
        machine.sh(change)
        machine.make("test", f"VENV={machine.root}/shared", broken=broken, fails=bool(broken))
        assert machine.calls("python3 -m pip") == expected, change
    assert not (machine.root / ".venv").exists()


PACKAGES = "apt-get install -y --no-install-recommends latexmk texlive-latex-recommended"  # and more
LATEX = ["LaTeX is missing", PACKAGES]
CAPSULE = "mkdir wheels; echo cpython-311 linux-x86_64 >wheels/made-for; sha256sum requirements.lock >SHA256SUMS; "
OTHER = 'rm .venv/*.sha256; mv .venv other; echo "#$PWD/other/bin/python" >other/bin/pip; '
SITE = "touch other/pyvenv.cfg; mkdir -p other/lib/python3.11/site-packages; touch other/lib/python3.11/site-packages"
OTHERS = ["other: not a virtual environment of this project"]
NO_FLOCK = ["this folder cannot be locked"]


@pytest.mark.parametrize(
    ("change", "options", "shown", "fails", "installed"),
    [
        # what to do is one sentence, and nothing is installed
        ("mv .venv moved", {"VENV": "moved"}, ["rm -r moved"], True, []),
        ("echo '#!/gone/bin/python' >.venv/bin/python", {}, ["rm -r .venv"], True, []),
        (f"{OTHER} mkdir other/conda-meta; touch other/conda-meta/history", {"VENV": "other"}, OTHERS, True, []),
        (f"{OTHER} {SITE}/django.py", {"VENV": "other"}, OTHERS, True, []),
        ("true", {"VENV": "a:b"}, ["colon"], True, []),
        ("true", {"broken": "python"}, ["python3 is Python 3.10.2", "make PYTHON="], True, []),
        ("true", {"broken": "python", "PYTHON": "python3.99"}, ["python3.99 is missing", "make PYTHON="], True, []),
        ("true", {"broken": "ensurepip"}, ["apt-get install -y python3-venv"], True, []),
        ("rm bin/latexmk", {}, LATEX, True, []),
        ("rm bin/pdflatex", {}, LATEX, True, []),
        ("ln -sf /bin/false bin/kpsewhich", {}, LATEX, True, []),  # a package of it is
        (f"{CAPSULE} echo 2.1 >requirements.lock", {}, ["requirements.lock: FAILED", "unpack it again"], True, []),
        (f"{CAPSULE} sed -i s/311/314/ wheels/made-for", {}, ["cpython-314", "cpython-311", "make PYTHON="], True, []),
        (f"{CAPSULE} rm bin/latexmk", {"who": "0"}, LATEX, True, []),
        # a setting of pip sent the packages elsewhere
        ("true", {"broken": "import"}, ["cannot import snakemake, torch", "pip config list"], True, ["pip install"]),
        # what is missing is installed, once it was announced
        ("true", {"who": "0", "broken": "ensurepip"}, ["+ apt-get update"], False, ["python3-venv"]),
        ("rm bin/latexmk", {"who": "0"}, ["+ apt-get update\napt-get at work\n+ env "], False, [PACKAGES]),
        ("rm bin/latexmk", {"who": "sudoer"}, ["+ sudo -n apt-get update\napt-get at work"], False, [PACKAGES]),
        ("rm bin/latexmk", {"who": "0", "broken": "lists"}, ["present package lists"], False, [PACKAGES]),
        ("true", {"who": "0", "broken": "dataset"}, ["will download it"], False, ["dataset-fashion-mnist"]),
        # or is not needed
        (f"{OTHER} {SITE}/pip", {"VENV": "other"}, [], False, ["pip install"]),  # a new one of the user
        ("rm bin/latexmk; ln -s /bin/true bin/tectonic", {}, [], False, ["venv .venv", "pip install"]),
        ("ln -sf /bin/false bin/flock", {}, NO_FLOCK, False, ["pip install"]),  # no locks on this disk
        ("rm bin/flock", {}, NO_FLOCK, False, ["pip install"]),
    ],
)
def test_what_is_missing_is_named_or_installed(
    machine: Machine, change: str, options: dict[str, Any], shown: list[str], fails: bool, installed: list[str]
) -> None:
    if ".venv" in change:
        machine.make()
    machine.sh(change)
    printed = machine.make(fails=fails, **options)
    assert all(text in printed for text in shown), printed
    calls = [call for call in machine.calls() if call.startswith(("apt-get", "python3 -m pip", "python3 -m venv"))]
    assert bool(calls) == bool(installed) and all(text in "\n".join(calls) for text in installed), calls


def test_the_system_is_left_alone_where_it_is_not_needed(machine: Machine) -> None:
    machine.sh("rm bin/latexmk")
    for words in (["plan"], ["plan", "SYSTEM=yes"], ["SYSTEM=no"]):  # only the PDF needs LaTeX
        assert "LaTeX is missing" in machine.make(*words, who="0", broken="dataset")
        assert not machine.calls("apt-get")


def test_a_held_lock_of_apt_get_is_waited_for(machine: Machine) -> None:
    machine.sh("rm bin/latexmk")
    for name, body in {
        "stat": "echo ':4711 '",
        "grep": '[ "$*" = "-qF :4711  /proc/locks" ] && [ ! -e slept ]',
        "sleep": 'echo "sleep $*" >>"$CALLS"; touch slept',
    }.items():
        machine.stub(name, body)
    assert "Another apt-get is running" in machine.make(who="0")
    calls = machine.calls()
    assert calls.index("sleep 2") < calls.index("apt-get update")


def test_a_capsule_needs_no_network(machine: Machine) -> None:
    machine.sh(CAPSULE)
    machine.make(who="0", broken="dataset")
    [install] = machine.calls("python3 -m pip install")
    assert " --no-index --find-links wheels --require-hashes " in install
    assert not machine.calls("apt-get")
    machine.sh("echo of another Python, once it is installed >wheels/made-for")
    machine.make()


def test_settings_for_other_programs_decide_nothing(machine: Machine) -> None:
    machine.stub("snakemake", "env >environment")
    theirs = dict.fromkeys(["PIP_TARGET", "PIP_DRY_RUN", "PYTHONPATH", "PYTHONOPTIMIZE", "SNAKEMAKE_PROFILE"], "theirs")
    theirs |= {"BASH_ENV": "/theirs", "CDPATH": "/theirs", "BASH_FUNC_python%%": "() { echo theirs; exit 9; }"}
    index = {"PIP_INDEX_URL": "https://example.org", "PIP_NO_INDEX": "1", "PIP_CERT": "x"}
    machine.make("only", "ITEM=plane", **theirs, **index)
    environment = (machine.root / "environment").read_text()
    assert "theirs" not in environment and all(f"{name}={value}\n" in environment for name, value in index.items())
    assert {"PYTHONPATH=workflow", "PYTHONSAFEPATH=1", "PYTHONUTF8=1"} <= set(environment.splitlines())
    assert f"HOME={machine.root}/.snakemake/home\n" in environment  # there was none
    machine.make("only", HOME=str(machine.root))
    assert f"HOME={machine.root}\n" in (machine.root / "environment").read_text()


def test_any_character_but_a_colon_may_be_in_the_names_of_folders(machine: Machine, tmp_path: Path) -> None:
    for name, venv in [("a $x", "it's"), ("\"b` (c) '#%~ü", ".venv"), ("a:b", ".venv")]:
        other = Machine(tmp_path / "names" / name)
        shutil.copytree(machine.root, other.root, symlinks=True, ignore=shutil.ignore_patterns("names"))
        done = other.run(MAKE, f"VENV={venv}", PATH=str(machine.root / "bin"))
        assert (done.returncode != 0) == ("colon" in done.stdout) == (":" in name), done.stdout


def test_the_files_that_name_dependencies_agree() -> None:
    """The locks with pyproject.toml and with environment.yml, which adds only Python, pip and LaTeX."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locks = []
    for lock, direct in [
        ("requirements.lock", project["project"]["dependencies"]),
        ("requirements-dev.lock", project["dependency-groups"]["dev"]),
    ]:
        pins = re.findall(r"^([\w.\[\]-]+)==([^ ;\n]+)", (ROOT / lock).read_text(), flags=re.MULTILINE)
        locks.append({canonicalize_name(name.partition("[")[0]): version for name, version in pins})
        for wanted in map(Requirement, direct):
            assert wanted.specifier.contains(locks[-1][canonicalize_name(wanted.name)]), f"{wanted} is not in {lock}"
    assert locks[0].keys().isdisjoint(locks[1])
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {canonicalize_name(Requirement(entry).name) for entry in pip["pip"]} == locks[0].keys()
    assert {Requirement(entry).name for entry in conda} == {"python", "pip", "tectonic"}
    python = next(Requirement(entry).specifier for entry in conda if entry.startswith("python "))
    offered = [f"3.{minor}" for minor in range(100) if python.contains(f"3.{minor}.0")]
    assert 0 < len(offered) < 10, "no upper bound"
    assert all(SpecifierSet(project["project"]["requires-python"]).contains(version) for version in offered)
