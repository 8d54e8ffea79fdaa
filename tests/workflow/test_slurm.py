"""The workflow on a cluster: what jobs ask for, and a real Slurm of one node, with a GPU that is none.

The slow tests start munge and Slurm's two daemons on loopback, as root, and take them down again.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from checkouts import Checkout, jobs_of
from effective_lr.engine import storage
from shared import ROOT

PROFILE = ROOT / "profiles" / "slurm" / "profile.yaml"
DAEMONS = ("munged", "slurmctld", "slurmd")
SLURM = Path("/etc/slurm")  # the jobs of the plugin look nowhere else
QUICK = ("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10", "--local-cores", "2")

plugin = pytest.mark.skipif(
    importlib.util.find_spec("snakemake_executor_plugin_slurm") is None, reason="needs the dependency group slurm"
)


@plugin
def test_the_profile_plans_without_a_cluster_by_options_that_snakemake_knows(untouched: Checkout) -> None:
    plan = untouched.snakemake("paper", "--dry-run", "--workflow-profile", "profiles/slurm")
    assert plan.returncode == 0 and "train" in plan.stdout, plan.stdout
    known = untouched.snakemake("--help").stdout
    assert not [option for option in yaml.safe_load(PROFILE.read_text()) if not re.search(rf"--{option}[ \],]", known)]


def test_only_training_goes_to_the_cluster() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    [local] = re.findall(r"^localrules:\n((?:    \w+,\n)+)", text, re.MULTILINE)
    working = set(re.findall(r"^rule (\w+):\n(?:(?:    .*)?\n)*?    shell:\n", text, re.MULTILINE))
    assert working - set(re.findall(r"\w+", local)) == {"train"}


CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=300
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=60 State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a Slurm on this machine; `submissions` there has what each sbatch got."""
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {missing[0]}: install the Debian packages slurmd, slurmctld, slurm-client and munge")
    if os.geteuid():
        pytest.skip("Slurm's daemons are started as root")
    if (SLURM / "slurm.conf").exists():
        pytest.skip(f"{SLURM}/slurm.conf is there: this machine belongs to a cluster, which is left alone")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    for name in ("munge", "state", "spool", "bin"):
        (folder / name).mkdir(mode=0o755)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    for number in range(2):
        subprocess.run(["mknod", folder / f"gpu{number}", "c", "1", "3"], check=True)  # as /dev/null
    host, sbatch = os.uname().nodename, folder / "bin/sbatch"
    (folder / "slurm.conf").write_text(CONFIG.format(host=host, folder=folder))
    (folder / "gres.conf").write_text(f"AutoDetect=off\nNodeName={host} Name=gpu File={folder}/gpu[0-1]\n")
    sbatch.write_text(f'#!/bin/sh\necho "$@" >> {folder}/submissions\nexec {shutil.which("sbatch")} "$@"\n')
    sbatch.chmod(0o755)

    files = [SLURM / "slurm.conf", SLURM / "gres.conf"]
    munge = [f"--{what}={folder}/{name}" for what, name in [("key-file", "munge.key"), ("log-file", "munge.log"),
             ("socket", "munge/munge.sock"), ("pid-file", "munged.pid"), ("seed-file", "munge.seed")]]  # fmt: skip
    try:
        for file in files:
            file.symlink_to(folder / file.name)
        for daemon in (["munged", "--force", *munge], ["slurmctld"], ["slurmd"]):
            subprocess.run(daemon, check=True)
        for _ in range(60):
            state = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True).stdout
            if state.strip() == "idle":
                break
            time.sleep(0.5)
        else:
            logs = "".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
            pytest.fail(f"Slurm does not come up: {state}\n{logs}")
        yield folder
    finally:
        subprocess.run(["scancel", f"--user={os.environ.get('USER', 'root')}"], check=False, capture_output=True)
        for file in files:
            if file.is_symlink() and file.readlink().parent == folder:
                file.unlink()
        for name in reversed(DAEMONS):
            if (folder / f"{name}.pid").exists():
                stop(int((folder / f"{name}.pid").read_text()))


def stop(pid: int) -> None:
    """End a process that is not ours to wait for."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)


def start(cluster: Path, checkout: Checkout, *words: str) -> "subprocess.Popen[str]":
    (cluster / "submissions").write_text("")
    command = (sys.executable, "-m", "snakemake", *words, "--workflow-profile", "profiles/slurm", *QUICK)
    return checkout.start(*command, PATH=f"{cluster / 'bin'}:{os.environ['PATH']}")


def submissions_after(cluster: Path, process: "subprocess.Popen[str]") -> list[str]:
    """The words of each sbatch, once the workflow is finished."""
    printed, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, printed[-5000:]
    return (cluster / "submissions").read_text().splitlines()


@plugin
@pytest.mark.slow
def test_the_smoke_scale_through_slurm_to_its_pdf(cluster: Path, fresh: Checkout) -> None:
    submissions = submissions_after(cluster, start(cluster, fresh, "paper", "--set-resources", "train:gpu=1"))
    assert (fresh.root / "paper/build/smoke/main.pdf").stat().st_size > 100_000
    assert len(submissions) == len(jobs_of(fresh.chapters()))
    for asked in (r"--gpus=1", r"--requeue", r"-t \d+ ", r"--mem \d+ "):
        assert all(re.search(asked, words) for words in submissions), asked


@plugin
@pytest.mark.slow
def test_a_job_killed_by_the_scheduler_resumes(cluster: Path, real: Checkout) -> None:
    (real.root / "config/normalization/long.yaml").write_text(
        "based_on: smoke\nabout: one run of many steps\ndefaults: {steps: 20000}\n"
        "experiments: {growth: {cases: [{optimizer: sgd, affine_lr: 0.1, lr: [0.64]}]}}\n"
    )
    config = ("--config", "scale=long", "checkpoint_seconds=1000")  # the only one is that of the signal
    [job] = real.chapters("long")["normalization"].jobs_of(["growth"])
    results = real.root / "results/long/normalization"
    output, log = results / f"jobs/{job}.parquet", results / f"logs/{job}.log"
    target = str(output.relative_to(real.root))

    process = start(cluster, real, target, *config)
    while process.poll() is None and not (log.exists() and "runs to train" in log.read_text()):
        time.sleep(0.1)
    time.sleep(5)  # in which it reads the data and begins
    jobs = subprocess.run(["squeue", "--noheader", "--format=%i"], capture_output=True, text=True).stdout.split()
    assert len(jobs) == 1, "there is no job to kill"
    subprocess.run(["scancel", jobs[0]], check=True)
    first, second = [int(words.split("-t ")[1].split()[0]) for words in submissions_after(cluster, process)]
    assert second == 2 * first  # minutes: the second attempt gets more time
    table, [record] = storage.read_table(output)
    assert record.resumed

    shutil.rmtree(results)
    assert real.snakemake(target, "--cores", "1", *config).returncode == 0
    undisturbed, [record] = storage.read_table(output)
    assert not record.resumed and table.equals(undisturbed), record
