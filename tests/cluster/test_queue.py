"""What SLURM and PBS are asked for."""

import pytest

from pliant.cluster import Tls, parse_resources, queue_script, remote_client
from pliant.cluster._remote import _require_one_thread
from pliant.cluster._tls import security_of
from pliant.errors import UserError

pytest.importorskip("dask_jobqueue")


def test_the_script_for_slurm():
    text = "partition=gpu,account=me,gpus=1,cores=8,memory=32GiB,time=02:00:00,setup=module load a;. env,extra=-C a100"
    lines = queue_script("slurm", parse_resources("--slurm", text)).splitlines()
    wanted = ["-p gpu", "-A me", "--cpus-per-task=8", "--mem=32G", "-t 02:00:00", "--gres=gpu:1", "-C a100"]
    assert all(f"#SBATCH {each}" in lines for each in wanted)
    assert lines.index("module load a") + 1 == lines.index(". env")
    worker = lines[-1]
    assert "dask_worker tls://SCHEDULER" in worker
    assert "--nthreads 1 " in worker
    assert "--nanny" in worker
    assert "--dashboard-address 127.0.0.1:0" in worker


def test_the_script_for_pbs():
    script = queue_script("pbs", parse_resources("--pbs", "partition=short,gpus=1,python=/env/bin/python,interface=lo"))
    assert "#PBS -q short" in script
    assert "#PBS -l select=1:ncpus=4:ngpus=1:mem=16GB" in script
    assert "/env/bin/python -m distributed.cli.dask_worker" in script
    assert "--interface lo" in script
    assert "gpus" not in queue_script("pbs", {})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("partition", "at 'partition'; wanted KEY=VALUE"),
        ("queue=a", "at 'queue=a'; wanted KEY=VALUE,… with each of partition"),
        ("gpus=1,gpus=2", "at 'gpus=2'"),
    ],
)
def test_resources_that_are_none_are_refused(text, match):
    with pytest.raises(UserError, match=match):
        parse_resources("--slurm", text)


def test_numbers_of_resources():
    with pytest.raises(UserError, match="got cores=many; wanted a whole number"):
        queue_script("slurm", {"cores": "many"})
    with pytest.raises(UserError, match="got gpus=2; wanted 1 or 0"):
        queue_script("slurm", {"gpus": "2"})


def test_certificates(tmp_path):
    files = [tmp_path / name for name in ("ca", "cert", "key")]
    for file in files:
        file.write_text("a certificate")
    security = security_of(Tls(*files))
    for role in ("client", "worker", "scheduler"):
        config = security.get_tls_config_for_role(role)
        assert (config["ca_file"], config["cert"], config["key"]) == tuple(map(str, files))
    assert security.require_encryption
    assert security_of(Tls()) is None
    with pytest.raises(UserError, match="got --tls-key None; wanted a PEM file"):
        security_of(Tls(*files[:2]))
    with pytest.raises(UserError, match=r"got --tls-ca-file .*none; wanted a PEM file"):
        security_of(Tls(tmp_path / "none", *files[1:]))


@pytest.mark.parametrize(
    ("address", "tls", "match"),
    [
        ("host:8786", Tls(), "got --scheduler host:8786; wanted tcp://HOST:PORT"),
        ("tls://host:8786", Tls(), "without certificates; wanted certificates for tls://"),
        ("tcp://host:8786", Tls("a", "b", "c"), "with certificates; wanted"),
    ],
)
def test_addresses_are_refused(address, tls, match):
    with pytest.raises(UserError, match=match), remote_client(address, tls):
        pass


def test_workers_with_several_threads_are_refused():
    _require_one_thread({"tcp://a:1": 1})
    with pytest.raises(UserError, match="got the worker tcp://a:2 with 4 threads; wanted workers with one thread"):
        _require_one_thread({"tcp://a:1": 1, "tcp://a:2": 4})
