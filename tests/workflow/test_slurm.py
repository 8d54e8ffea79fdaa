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
from dataclasses import dataclass
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
def test_the_profile_has_options_that_snakemake_knows() -> None:
    known = subprocess.run([sys.executable, "-m", "snakemake", "--help"], capture_output=True, text=True).stdout
    for option in yaml.safe_load(PROFILE.read_text()):
        assert re.search(rf"--{option}[ \],]", known), option


@plugin
def test_the_profile_plans_without_a_cluster(untouched: Checkout) -> None:
    plan = untouched.snakemake("paper", "--dry-run", "--workflow-profile", "profiles/slurm")
    assert plan.returncode == 0 and "train" in plan.stdout, plan.stdout + plan.stderr


def test_only_training_goes_to_the_cluster() -> None:
    files = [path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")]
    [local] = [found for text in files for found in re.findall(r"^localrules:\n((?:    \w+,\n)+)", text, re.MULTILINE)]
    rules = [rule for text in files for rule in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]]
    working = {rule.partition(":")[0] for rule in rules if "    shell:\n" in rule}
    assert working - set(re.findall(r"\w+", local)) == {"train"}


@dataclass
class Cluster:
    """A cluster of one node, and what was submitted to it."""

    folder: Path

    @property
    def submissions(self) -> list[str]:
        """The words of each sbatch."""
        record = self.folder / "submissions"
        return record.read_text().splitlines() if record.exists() else []

    def start(self, checkout: Checkout, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *words, "--workflow-profile", "profiles/slurm", *QUICK],
            cwd=checkout.root,
            env={**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


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
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Slurm on this machine, for the time of these tests."""
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
    host = os.uname().nodename
    (folder / "slurm.conf").write_text(CONFIG.format(host=host, folder=folder))
    (folder / "gres.conf").write_text(f"AutoDetect=off\nNodeName={host} Name=gpu File={folder}/gpu[0-1]\n")
    sbatch = shutil.which("sbatch")
    (folder / "bin/sbatch").write_text(f'#!/bin/sh\necho "$@" >> {folder}/submissions\nexec {sbatch} "$@"\n')
    (folder / "bin/sbatch").chmod(0o755)

    files = [SLURM / "slurm.conf", SLURM / "gres.conf"]
    munge = [f"--{what}={folder}/{name}" for what, name in [("key-file", "munge.key"), ("log-file", "munge.log"),
             ("socket", "munge/munge.sock"), ("pid-file", "munged.pid"), ("seed-file", "munge.seed")]]  # fmt: skip
    try:
        for file in files:
            file.symlink_to(folder / file.name)
        subprocess.run(["munged", "--force", *munge], check=True)
        subprocess.run(["slurmctld"], check=True)
        subprocess.run(["slurmd"], check=True)
        for _ in range(60):
            state = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True).stdout
            if state.strip() == "idle":
                break
            time.sleep(0.5)
        else:
            logs = "".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
            pytest.fail(f"Slurm does not come up: {state}\n{logs}")
        yield Cluster(folder)
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


@plugin
@pytest.mark.slow
def test_the_smoke_scale_through_slurm_to_its_pdf(cluster: Cluster, fresh: Checkout) -> None:
    process = cluster.start(fresh, "paper", "--set-resources", "train:gpu=1")
    printed, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, printed[-5000:]
    assert (fresh.root / "paper/build/smoke/main.pdf").stat().st_size > 100_000
    assert len(cluster.submissions) == len(jobs_of(fresh.chapters()))
    for words in cluster.submissions:
        assert "--gpus=1" in words and "--requeue" in words and re.search(r"-t \d+ ", words), words
        assert re.search(r"--mem \d+ ", words), words


@plugin
@pytest.mark.slow
def test_a_job_killed_by_the_scheduler_resumes(cluster: Cluster, real: Checkout, tmp_path: Path) -> None:
    (real.root / "config/normalization/long.yaml").write_text(
        "based_on: smoke\nabout: one run of many steps\ndefaults: {steps: 20000}\n"
        "experiments: {growth: {cases: [{optimizer: sgd, affine_lr: 0.1, lr: [0.64]}]}}\n"
    )
    config = ("--config", "scale=long", "checkpoint_seconds=1000")  # the only one is that of the signal
    [job] = real.chapters("long")["normalization"].jobs_of(["growth"])
    output = f"results/long/normalization/jobs/{job}.parquet"
    before = len(cluster.submissions)

    process = cluster.start(real, output, *config)
    log = real.root / "results/long/normalization/logs" / f"{job}.log"
    while process.poll() is None and not (log.exists() and "runs to train" in log.read_text()):
        time.sleep(0.1)
    time.sleep(5)  # in which it reads the data and begins
    jobs = subprocess.run(["squeue", "--noheader", "--format=%i"], capture_output=True, text=True).stdout.split()
    assert len(jobs) == 1, "there is no job to kill"
    subprocess.run(["scancel", jobs[0]], check=True)
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed[-5000:]
    first, second = cluster.submissions[before:]
    minutes = [int(re.search(r"-t (\d+) ", words)[1]) for words in (first, second)]  # type: ignore[index]
    assert minutes[1] == 2 * minutes[0]  # the second attempt gets more time
    [record] = storage.read_table(real.root / output)[1]
    assert record.resumed

    table, _ = storage.read_table(real.root / output)
    shutil.rmtree(real.root / "results/long")
    assert real.snakemake(output, "--cores", "1", *config).returncode == 0
    undisturbed, [record] = storage.read_table(real.root / output)
    assert not record.resumed and table.equals(undisturbed), record
