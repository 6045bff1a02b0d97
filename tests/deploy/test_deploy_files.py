"""The files in ``deploy/`` are checked as far as they can be without a cloud: structure, versions, flags, shells."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sweeps.arguments import _parser as launch_parser
from tests.launch.sweeping import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())
SCRIPTS = [*sorted(DEPLOY.glob("*.sh")), REPOSITORY / ".ci" / "run"]
PINNED = re.compile(r"\b([A-Za-z][\w.-]*?)(?:\[\w+\])?==(\d[\w.]*)")
_COMMAND = re.compile(r"\b(ray (?:start|status|up|down|exec)|mlflow server|launch\.py|start_or_resume\.sh) ")
IMAGE = re.compile(r"\b(python|rayproject/ray|repsim-sweeps):([\w.-]+)")


def pins() -> dict[str, str]:
    """Versions in constraints.txt, and those of Python and of this project."""
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    found = {canonicalize_name(name): version for name, version in PINNED.findall(text)}
    python = re.search(r"Python (\d+\.\d+)", text)
    project = re.search(r'^version = "(.+)"$', (REPOSITORY / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert python is not None
    assert project is not None
    return {**found, "python": python[1], "repsim-sweeps": project[1]}


def versions_in(text: str) -> list[tuple[str, str]]:
    """Every package and image of ours, of Ray's or of Python's with the version that ``text`` gives it."""
    found = [(canonicalize_name(name), version) for name, version in PINNED.findall(text)]
    found += re.findall(r'(ray)Version: "(.+)"', text)
    for image, tag in IMAGE.findall(text):
        version, *rest = tag.split("-")
        found.append((image.replace("rayproject/", ""), version))
        found += [("python", f"{part[2]}.{part[3:]}") for part in rest if re.fullmatch(r"py3\d+", part)]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_versions_are_those_of_the_constraints(path: Path) -> None:
    pinned = pins()
    for name, version in versions_in(path.read_text(encoding="utf-8")):
        expected = pinned["fsspec" if name == "s3fs" else name]  # released together, under one number
        assert version == expected, name


def test_another_version_would_be_seen() -> None:
    text = "FROM python:3.12-slim\nimage: rayproject/ray:2.59.0-py312-gpu\n"
    text += "pip install 'ray[default]==2.59.0' mlflow==3.0.1"
    assert versions_in(text) == [
        ("ray", "2.59.0"),
        ("mlflow", "3.0.1"),
        ("python", "3.12"),
        ("ray", "2.59.0"),
        ("python", "3.12"),
    ]
    everywhere = [name for path in FILES for name, _ in versions_in(path.read_text(encoding="utf-8"))]
    assert {"ray", "torch", "mlflow", "psycopg", "python", "repsim-sweeps"} <= set(everywhere)


def commands_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each ``ray``, ``mlflow server`` and ``launch.py`` command of a file, with its long flags."""
    joined = re.sub(r"\\\n[ #]*|\n[ #]+(?=--)", " ", text)
    for match in _COMMAND.finditer(joined):
        rest = re.split(r"[;&|'`\n]", joined[match.end() :])[0]
        yield match[1], re.findall(r"(?<=\s)--[a-z][a-z-]+", f" {rest}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_flags_exist(path: Path) -> None:
    for command, flags in commands_in(path.read_text(encoding="utf-8")):
        unknown = [flag for flag in flags if flag not in known_flags(command)]
        assert unknown == [], command


@cache
def known_flags(command: str) -> frozenset[str]:
    """The long flags of a command, as its own definition has them."""
    if command in ("launch.py", "start_or_resume.sh"):
        return frozenset(flag for action in launch_parser()._actions for flag in action.option_strings)
    program, name = command.split()
    module = {"ray": "ray.scripts.scripts", "mlflow": "mlflow.cli"}[program]
    # in a process of its own: importing MLflow's commands warns of this and that
    script = f"from {module} import cli; params = cli.commands[{name!r}].params; "
    script += "print(*(flag for one in params for flag in (*one.opts, *one.secondary_opts)))"
    command_line = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=120, check=True)
    return frozenset(done.stdout.splitlines()[-1].split())


def test_an_unknown_flag_would_be_seen() -> None:
    text = "ray start --head \\\n    --prot=6379\nmlflow server --backend-store-uri x && ls --all"
    found = list(commands_in(text))
    assert found == [("ray start", ["--head", "--prot"]), ("mlflow server", ["--backend-store-uri"])]
    assert "--prot" not in known_flags("ray start")
    seen = {command for path in FILES for command, _ in commands_in(path.read_text(encoding="utf-8"))}
    assert {"ray start", "ray status", "ray up", "mlflow server", "launch.py", "start_or_resume.sh"} <= seen


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=20)
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([checker, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert path.stat().st_mode & 0o111, "can be run"


def read(name: str) -> dict[str, Any]:
    document = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def test_ray_takes_its_cluster_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(read("ray-cluster.yaml"))
    validate_config(prepared)
    assert set(prepared["available_node_types"]) == {"head", "gpu"}, "nothing of Ray's own example is left"
    started = prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"]
    assert sum("RAY_AUTH_MODE=token ray start" in command for command in started) == 2
    assert "~/.ray/auth_token" in prepared["file_mounts"]


def test_ray_refuses_a_misspelt_cluster_file() -> None:
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    wrong = read("ray-cluster.yaml")
    wrong["available_node_types"]["gpu"]["min_worker"] = 1
    with pytest.raises(jsonschema.ValidationError, match="min_worker"):
        validate_config(prepare_config(wrong))


JOB = {"entrypoint", "submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit"}
CLUSTER = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def test_the_ray_job_has_the_fields_of_its_kind() -> None:
    """Those of ray.io/v1 that are used here, spelled as its definition spells them."""
    job = read("kuberay-rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) == JOB | {"rayClusterSpec"}
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == CLUSTER
    assert cluster["authOptions"] == {"mode": "token"}
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(head) == {"rayStartParams", "template"}
    for group in workers:
        assert set(group) == GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    images = set()
    for group in (head, *workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        images.add(container["image"])
        assert container["resources"]["requests"] == container["resources"]["limits"], "Ray counts what it is given"
        assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
        assert {"/sweeps", "/dev/shm"} == {mount["mountPath"] for mount in container["volumeMounts"]}
        params = group["rayStartParams"]
        assert all(isinstance(value, str) for value in params.values()), "the definition wants strings"
    assert len(images) == 1, "one version everywhere"
    shell, option, line = shlex.split(spec["entrypoint"])
    assert (shell, option) == ("bash", "-c")
    assert "/repsim/deploy/start_or_resume.sh kube --space pareto.yaml" in line


def test_mlflow_is_published_on_loopback_alone_and_has_no_secret_in_the_file() -> None:
    compose = read("mlflow-compose.yaml")
    published = {name: one["ports"] for name, one in compose["services"].items() if "ports" in one}
    assert published == {"server": ["127.0.0.1:5000:5000"]}
    secrets = [
        value
        for one in compose["services"].values()
        for key, value in one.get("environment", {}).items()
        if re.search(r"PASSWORD|SECRET|ACCESS_KEY|STORE_URI|ROOT_USER", key)
    ]
    assert len(secrets) == 6
    assert all(re.search(r"\$\{[A-Z0-9_]+:\?", value) for value in secrets)
    example = (DEPLOY / "mlflow.env.example").read_text(encoding="utf-8")
    wanted = set(re.findall(r"\$\{([A-Z0-9_]+):\?", (DEPLOY / "mlflow-compose.yaml").read_text(encoding="utf-8")))
    assert wanted == set(re.findall(r"^([A-Z0-9_]+)=", example, flags=re.MULTILINE))
    assert "deploy/.env" in (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    mounted = {volume.split(":")[0] for one in compose["services"].values() for volume in one.get("volumes", [])}
    assert mounted == set(compose["volumes"])
    waits_for = compose["services"]["server"]["depends_on"]
    assert all("healthcheck" in compose["services"][name] for name in waits_for)


def test_the_servers_command_is_python_and_shell(tmp_path: Path) -> None:
    shell, option, line = read("mlflow-compose.yaml")["services"]["server"]["command"]
    assert (shell, option) == ("sh", "-c")
    subprocess.run(["sh", "-n", "-c", line], check=True, timeout=20)
    words = shlex.split(line)
    compile(words[words.index("-c") + 1], "bucket", "exec")


def test_what_the_image_copies_is_there_and_what_it_installs_is_named() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", text, flags=re.MULTILINE) for word in line.split()]
    assert {"repsim", "sweeps", "search_spaces", "constraints.txt"} <= set(copied)
    assert [name for name in copied if not (REPOSITORY / name).exists()] == []
    installed = re.search(r"'(ray\[default\]==[\d.]+)'", text)
    assert installed is not None
    assert Requirement(installed[1]).extras == {"default"}
    assert re.search(r"^USER (?!root)", text, flags=re.MULTILINE), "not as root"


def test_the_readme_knows_every_file() -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in FILES if path.name != "README.md" and path.name not in text] == []
