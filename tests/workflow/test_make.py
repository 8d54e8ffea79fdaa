"""`make` on machines that lack something, and the agreement of the files that name dependencies.

Stubs on PATH play the machine and log how they are called; no test installs anything.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from shared import ROOT

MAKE = shutil.which("make") or "make"
TOOLS = "bash basename cat chmod dirname env flock grep head id ls mkdir nproc rm sed sha256sum tee touch"
LATEX = ("latexmk", "pdflatex", "kpsewhich")
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
    **dict.fromkeys(("ruff", "mypy", "snakefmt", "pytest", "jupyter", "jupytext-config", *LATEX), ""),
}


@dataclass
class Machine:
    """A checkout in a temporary folder, on a machine that has the stubs and nothing else."""

    root: Path

    def make(self, *words: str, fails: bool = False, **variables: str) -> str:
        """Run make as `who`: root ("0"), a "sudoer", or another user id. What it prints."""
        done = self.run(MAKE, *words, **variables)
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def run(
        self, *command: str, who: str = "1000", broken: str = "", cwd: str = ".", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        (self.root / "calls").unlink(missing_ok=True)
        machine = {"PATH": str(self.root / "bin"), "CALLS": str(self.root / "calls"), "REAL_PYTHON": sys.executable}
        return subprocess.run(
            command,
            cwd=self.root / cwd,
            env={**machine, "LC_ALL": "C", "WHO": who, "BROKEN": broken, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def calls(self, program: str = "") -> list[str]:
        """The calls of the last make, of all stubs or one."""
        calls = (self.root / "calls").read_text().splitlines() if (self.root / "calls").exists() else []
        return [call for call in calls if call.startswith(program)]

    def stub(self, name: str, body: str) -> None:
        (self.root / "bin" / name).unlink(missing_ok=True)
        (self.root / "bin" / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
        (self.root / "bin" / name).chmod(0o755)

    def without(self, *programs: str) -> "Machine":
        for program in programs:
            (self.root / "bin" / program).unlink()
        return self


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    for file in ("Makefile", "workflow/setup.sh", "tests/lint.sh", ".ci/run"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "requirements.lock").write_text("torch==2.0\n")
    (tmp_path / "requirements-dev.lock").write_text("pytest==9.0\n")
    (tmp_path / "bin").mkdir()
    for tool in {*TOOLS.split()} - STUBS.keys():
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is missing"))
    machine = Machine(tmp_path)
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
    }
    for words, call in expected.items():
        machine.make(*words.split())
        assert machine.calls()[-1] == call, words
    machine.make("lab")
    assert machine.calls()[-1].startswith("jupyter lab ")
    assert any(call.endswith("set-default-viewer python") for call in machine.calls("jupytext-config"))
    for words in ("notebooks", "report", "docs", "test-slow"):  # what more they need was installed by the first of them
        (machine.root / ".venv/requirements-dev.lock.sha256").unlink()
        machine.make(words)
        assert machine.calls("python3 -m pip") == [f"{INSTALL} requirements-dev.lock"], words


def test_every_target_is_listed_and_there_are_few(machine: Machine) -> None:
    listed = re.findall(r"^make (\S+)", machine.make("help"), flags=re.MULTILINE)
    [phony] = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    hidden = {"setup-dev", "help"}  # the first is part of others
    assert {*phony.replace("\\", "").split()} - hidden == {*listed} - {"figure_%", "table_%", "claim_%"} - hidden
    assert len(listed) <= 22


def test_ci_runs_make_test_with_the_linters_of_each_commit(machine: Machine) -> None:
    (machine.root / "bin" / "make").symlink_to(MAKE)
    assert machine.run("../.ci/run", cwd="bin").returncode == 0
    calls = machine.calls()
    [tests] = machine.calls("pytest")
    assert "not slow" in tests
    for hook in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]:
        assert [call for call in calls if call.startswith(hook["entry"])], hook
    for program in ("ruff", "pytest"):  # either fails the test
        machine.stub(program, "exit 1")
        assert machine.run("../.ci/run", cwd="bin").returncode != 0
        shutil.copy(machine.root / "bin" / "mypy", machine.root / "bin" / program)


def test_a_run_that_was_killed_leaves_a_mark_and_the_next_one_frees_the_lock(machine: Machine) -> None:
    def unlocked(code: int) -> bool:
        machine.make(SNAKEMAKE_CODE=str(code), fails=code != 0)
        return "snakemake --unlock" in machine.calls()

    assert [unlocked(code) for code in (0, 1, 137, 137, 0, 0)] == [False, False, False, True, True, False]


def test_a_lock_is_installed_again_only_when_its_contents_change(machine: Machine) -> None:
    machine.make("test")
    assert machine.calls("python3 -m pip") == [
        f"{INSTALL} {name}.lock" for name in ("requirements", "requirements-dev")
    ]
    for lock, contents, is_installed in [
        ("requirements.lock", "torch==2.0\n", False),
        ("requirements.lock", "torch==2.1\n", True),
        ("requirements-dev.lock", "pytest==9.1\n", True),
    ]:
        (machine.root / lock).write_text(contents)
        os.utime(machine.root / lock, (4e9, 4e9))
        machine.make("test")
        assert machine.calls("python3 -m pip") == ([f"{INSTALL} {lock}"] if is_installed else [])


def test_interrupted_installation_is_taken_up_again(machine: Machine) -> None:
    machine.make()
    (machine.root / "requirements.lock").write_text("torch==2.1\n")
    machine.make(broken="install", fails=True)
    (machine.root / "requirements.lock").write_text("torch==2.0\n")  # as the first stamp has it
    machine.make()
    assert machine.calls("python3 -m pip install")


def test_shared_environment(machine: Machine) -> None:
    machine.make(f"VENV={machine.root}/shared")
    assert (machine.root / "shared" / "bin" / "pip").exists()
    assert not (machine.root / ".venv").exists()


def test_an_environment_that_no_longer_works(machine: Machine) -> None:
    machine.make()
    (machine.root / ".venv").rename(machine.root / "moved")
    assert "rm -r moved" in machine.make("VENV=moved", fails=True)
    (machine.root / "moved").rename(machine.root / ".venv")
    machine.make()
    (machine.root / ".venv" / "bin" / "python").write_text("#!/gone/bin/python\n")
    assert "rm -r .venv" in machine.make(fails=True)


def test_no_python(machine: Machine) -> None:
    for python, found in [("python3", "Python 3.10.2"), ("python3.99", "missing")]:
        printed = machine.make(f"PYTHON={python}", broken="python", fails=True)
        assert python in printed and found in printed and "make PYTHON=" in printed
        assert not (machine.root / ".venv").exists()


def test_no_venv_module(machine: Machine) -> None:
    assert "apt-get install -y python3-venv" in machine.make(broken="ensurepip", fails=True)
    machine.make(broken="ensurepip", who="0")
    assert machine.calls("apt-get install")[0].endswith(" python3-venv")


PACKAGES = "latexmk texlive-latex-recommended"  # and more


def test_latex_is_missing(machine: Machine) -> None:
    for program in LATEX:
        shutil.move(machine.root / "bin" / program, machine.root / program)
        printed = machine.make(fails=True)
        assert "LaTeX is missing" in printed
        assert f"apt-get install -y --no-install-recommends {PACKAGES}" in printed
        assert not machine.calls("apt-get")
        shutil.move(machine.root / program, machine.root / "bin" / program)
    machine.stub("kpsewhich", "exit 1")  # a package is
    assert "LaTeX is missing" in machine.make(fails=True)
    machine.without(*LATEX)
    printed = machine.make("SYSTEM=no", who="0", broken="dataset")  # leaves the system alone; only the PDF needs LaTeX
    assert "LaTeX is missing" in printed and not machine.calls("apt-get")
    shutil.copy(machine.root / "bin" / "ruff", machine.root / "bin" / "tectonic")
    machine.make()


def test_apt_get_is_announced_before_it_runs(machine: Machine) -> None:
    machine.without(*LATEX)
    for who, prefix in [("0", ""), ("sudoer", "sudo -n ")]:
        lines = machine.make(who=who).splitlines()
        shown = [line for line in lines if line.startswith("+ ") or line == "apt-get at work"]
        assert shown[0] == f"+ {prefix}apt-get update" and shown[1] == shown[3] == "apt-get at work"
        assert shown[2].startswith(f"+ {prefix}env ") and PACKAGES in shown[2]


def test_no_package_with_fashion_mnist_is_no_error(machine: Machine) -> None:
    assert "the workflow will download it" in machine.make(who="0", broken="dataset")
    assert machine.calls("apt-get install")[-1].endswith(" dataset-fashion-mnist")


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


def test_packages_that_went_elsewhere_are_not_taken_for_installed(machine: Machine) -> None:
    for _ in range(2):
        printed = machine.make(broken="import", fails=True)
        assert machine.calls("python3 -m pip install")
        assert "cannot import snakemake, torch" in printed and "pip config list" in printed


def test_an_environment_of_another_project_is_left_as_it_is(machine: Machine) -> None:
    machine.make()
    for name, files in [
        ("conda", ["conda-meta/history"]),
        ("django", ["pyvenv.cfg", "lib/python3.11/site-packages/django.py"]),
    ]:
        shutil.copytree(machine.root / ".venv/bin", machine.root / name / "bin")
        (machine.root / name / "bin/pip").write_text(f"#{machine.root / name}/bin/python")
        for file in files:
            (machine.root / name / file).parent.mkdir(parents=True, exist_ok=True)
            (machine.root / name / file).write_text("")
        printed = machine.make(f"VENV={name}", fails=True)
        assert f"{name}: not a virtual environment of this project" in printed
        assert "rm -r" not in printed and not machine.calls("python3 -m")
    (machine.root / "django/lib/python3.11/site-packages/django.py").rename(machine.root / "moved.py")
    (machine.root / "django/lib/python3.11/site-packages/pip").mkdir()
    machine.make("VENV=django")  # it is new


def test_any_character_may_be_in_the_names_of_folders_but_a_colon(machine: Machine, tmp_path: Path) -> None:
    for name, venv, works in [
        ("a $x", "it's", True),
        ("\"b` (c) '#%~ü", ".venv", True),
        ("a:b", ".venv", False),
        ("d", "a:b", False),
    ]:
        shutil.copytree(
            machine.root, other := tmp_path / "names" / name, symlinks=True, ignore=shutil.ignore_patterns("names")
        )
        done = Machine(other).run(MAKE, f"VENV={venv}", PATH=str(machine.root / "bin"))
        assert (done.returncode == 0) == works, done.stdout
        assert works or ("colon" in done.stdout and not Machine(other).calls("python3 -m"))


def test_apt_get_is_not_asked_for_a_plan_and_may_have_no_lists(machine: Machine) -> None:
    machine.without(*LATEX)
    for words in (["plan"], ["plan", "SYSTEM=yes"]):
        machine.make(*words, who="0", broken="dataset")
        assert not machine.calls("apt-get")
    assert "present package lists" in machine.make(who="0", broken="lists") and machine.calls("apt-get install")


def test_a_held_lock_of_apt_get_is_waited_for(machine: Machine) -> None:
    for name, body in {
        "stat": "echo ':4711 '",
        "grep": '[ "$*" = "-qF :4711  /proc/locks" ] && [ ! -e slept ]',
        "sleep": 'echo "sleep $*" >>"$CALLS"; touch slept',
    }.items():
        machine.stub(name, body)
    assert "Another apt-get is running" in machine.without(*LATEX).make(who="0")
    calls = machine.calls()
    assert calls.index("sleep 2") < calls.index("apt-get update")


def test_without_locks_a_run_goes_on_with_one_line(machine: Machine) -> None:
    for code in ("1", "127"):
        machine.stub("flock", f"exit {code}")
        assert machine.make().count("this folder cannot be locked") == 1
    assert machine.without("flock").make().count("this folder cannot be locked") == 1


@pytest.fixture
def capsule(machine: Machine) -> Machine:
    """A machine whose checkout is a time capsule."""
    (machine.root / "wheels").mkdir()
    (machine.root / "wheels" / "made-for").write_text("cpython-311 linux-x86_64\n")
    sums = subprocess.run(["sha256sum", "requirements.lock"], cwd=machine.root, capture_output=True, check=True)
    (machine.root / "SHA256SUMS").write_bytes(sums.stdout)
    return machine


def test_a_capsule_needs_no_network(capsule: Machine) -> None:
    capsule.make(who="0", broken="dataset")
    [install] = capsule.calls("python3 -m pip install")
    assert " --no-index --find-links wheels --require-hashes " in install
    assert not capsule.calls("apt-get")
    (capsule.root / "wheels" / "made-for").write_text("of another Python, once it is installed\n")
    capsule.make()


def test_a_capsule_that_was_changed_is_not_installed(capsule: Machine) -> None:
    (capsule.root / "requirements.lock").write_text("torch==2.1\n")
    printed = capsule.make(fails=True)
    assert "requirements.lock: FAILED" in printed and "unpack it again" in printed
    assert not capsule.calls("python3 -m pip")


def test_a_capsule_for_another_python(capsule: Machine) -> None:
    (capsule.root / "wheels" / "made-for").write_text("cpython-314 linux-x86_64\n")
    printed = capsule.make(fails=True)
    assert "cpython-314" in printed and "cpython-311" in printed and "make PYTHON=" in printed
    assert not (capsule.root / ".venv").exists()


def test_a_capsule_without_latex_says_what_to_install(capsule: Machine) -> None:
    printed = capsule.without(*LATEX).make(who="0", fails=True)
    assert f"apt-get install -y --no-install-recommends {PACKAGES}" in printed
    assert not capsule.calls("apt-get")
    capsule.make("SYSTEM=no", who="0")  # the PDF alone needs it


# The files that name dependencies

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Each line of a lock that is neither a comment nor a continuation, and the hashes that continue it.
ENTRY = re.compile(r"^([^\s#].*?)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)$", re.MULTILINE)


def pins(lock: str) -> list[Requirement]:
    """The packages of a lock, every one of which has a hash, and no address of an index."""
    text = (ROOT / lock).read_text()
    entries = ENTRY.findall(text)
    assert [line for line, hashes in entries if not hashes or "==" not in line] == []
    assert re.findall(r"https?://|index-url|find-links", text) == []
    return [Requirement(line.rstrip(" \\")) for line, _ in entries]


def test_the_locks_meet_pyproject_and_share_no_package() -> None:
    paper, development = pins("requirements.lock"), pins("requirements-dev.lock")
    names = [{canonicalize_name(pin.name) for pin in lock} for lock in (paper, development)]
    assert names[0].isdisjoint(names[1])
    for direct, lock in [
        *((one, paper) for one in PROJECT["project"]["dependencies"]),
        *((one, development) for one in PROJECT["dependency-groups"]["dev"]),
    ]:
        wanted = Requirement(direct)
        pinned = [pin for pin in lock if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
        assert pinned, f"{direct} is not in its lock"
        versions = [str(pin.specifier).removeprefix("==") for pin in pinned]
        assert all(wanted.specifier.contains(version) for version in versions), f"{direct}: {versions}"


def test_environment_adds_only_python_pip_and_latex_to_the_lock() -> None:
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {Requirement(entry).name for entry in conda} == {"python", "pip", "tectonic"}
    assert {Requirement(entry).name for entry in pip["pip"]} == {pin.name for pin in pins("requirements.lock")}

    python = next(Requirement(entry).specifier for entry in conda if entry.startswith("python "))
    offered = [f"3.{minor}" for minor in range(100) if python.contains(f"3.{minor}.0")]
    assert offered
    assert len(offered) < 10, "no upper bound"
    assert all(SpecifierSet(PROJECT["project"]["requires-python"]).contains(version) for version in offered)
