"""The files of deployment fit the service: their schemas, their versions, the times and files they name."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import check_jsonschema
import jsonschema
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from config.load import load
from router.life import DRAIN_GRACE_S
from router.service_manager import CLOSING_S

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"headrace:{PROJECT['version']}"
KUBERNETES = ROOT / "deploy" / "kubernetes"
SCHEMAS = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor"
NOW_S = 1e9


def documents(path: Path) -> list[Any]:
    return list(YAML(typ="safe").load_all(path.read_text()))


def manifests() -> dict[tuple[str, str], Any]:
    return {
        (each["kind"], each["metadata"]["name"]): each
        for path in sorted(KUBERNETES.glob("*.yaml"))
        for each in documents(path)
    }


@pytest.fixture(scope="module")
def compose() -> Any:
    [document] = documents(ROOT / "docker-compose.yml")
    return document


# --- versions


def test_the_image_is_tagged_with_the_version(compose: Any) -> None:
    ours = {service["image"] for service in compose["services"].values() if "build" in service}
    [pod] = manifests()["StatefulSet", "headrace"]["spec"]["template"]["spec"]["containers"]
    assert ours | {pod["image"]} == {IMAGE}


def test_images_are_pinned(compose: Any) -> None:
    pod = manifests()["StatefulSet", "headrace"]["spec"]["template"]["spec"]
    named = [service["image"] for service in compose["services"].values()]
    named += [each["image"] for each in (*pod["containers"], *pod["initContainers"])]
    named += ["python:" + version for version in re.findall(r"^ARG PYTHON=(.*)$", dockerfile(), re.MULTILINE)]
    assert [name for name in named if not re.search(r":\d+\.\d+\.\d+", name)] == []


def test_the_image_installs_versions_that_the_project_allows() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "deploy/requirements.txt").read_text(), re.MULTILINE))
    wanted = [Requirement(line) for line in PROJECT["dependencies"]]
    unfit = [str(each) for each in wanted if not each.specifier.contains(pinned.get(canonicalize_name(each.name), "0"))]
    assert unfit == [], "run `make lock`"


# --- Docker


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*) \S+$", dockerfile(), re.MULTILINE)
    return [word for line in lines for word in line.split()]


def test_what_the_image_copies_is_there_and_let_in() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    assert [name for name in copied() if not (ROOT / name).exists() or name.split("/")[0] not in let_in] == []


def test_the_image_has_every_package_of_the_project() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {name.split(".")[0] for name in packages} <= set(copied())


def test_the_compose_file_fits_its_schema(compose: Any) -> None:
    jsonschema.validate(compose, json.loads((SCHEMAS / "compose-spec.json").read_text()))


def test_the_tests_start_nothing_but_servers(compose: Any) -> None:
    assert {name for name, service in compose["services"].items() if "profiles" not in service} == {
        "kafka",
        "localstack",
    }


def test_the_example_is_right_and_its_drain_is_not_cut_off(compose: Any, tmp_path: Path) -> None:
    found = load(ROOT / "deploy/example/headrace.yaml", {}, NOW_S)
    patience_s = int(compose["services"]["headrace"]["stop_grace_period"].removesuffix("s"))
    assert patience_s > found.drain_timeout_s + DRAIN_GRACE_S
    assert found.state_dir == Path("/var/lib/headrace")


class Answers(BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.rpartition("/")[2]))
        self.end_headers()
        self.wfile.write(b"why")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        pass


@contextmanager
def answering() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def probe(path: str, port: int, folder: Path) -> tuple[int, str]:
    script = folder / "probe"
    script.write_text(re.sub(r"9301$", str(port), (ROOT / "deploy/headrace-health").read_text(), flags=re.MULTILINE))
    ran = subprocess.run([sys.executable, "-I", script, path], capture_output=True, text=True, check=False)
    return ran.returncode, ran.stderr


def test_the_probe_says_what_is_wrong(tmp_path: Path) -> None:
    with answering() as port:
        assert probe("/200", port, tmp_path) == (0, "")
        assert probe("/503", port, tmp_path) == (1, "503 why\n")
    status, said = probe("/200", port, tmp_path)
    assert status == 1
    assert said.startswith(f"http://127.0.0.1:{port}/200: ")
    assert len(said.splitlines()) == 1


# --- systemd


def unit() -> Any:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((ROOT / "deploy/headrace.service").read_text())
    return parser["Service"]


def test_the_unit_waits_longer_than_a_drain_and_signals_the_daemon_alone() -> None:
    service = unit()
    default_s = load(ROOT / "deploy/example/headrace.yaml", {}, NOW_S).drain_timeout_s
    assert float(service["TimeoutStopSec"]) >= default_s + CLOSING_S > default_s + DRAIN_GRACE_S
    assert service["KillMode"] == "mixed"
    assert (service["Type"], service["Delegate"]) == ("notify", "yes")


# --- Kubernetes


def test_the_file_in_the_config_map_is_right_and_its_drain_is_not_cut_off(tmp_path: Path) -> None:
    (tmp_path / "functions").mkdir()
    (tmp_path / "secret").write_text("word")
    text = manifests()["ConfigMap", "headrace"]["data"]["headrace.yaml"]
    [secret] = re.findall(r"\$\{file:(.*)\}", text)
    (tmp_path / "headrace.yaml").write_text(text.replace(secret, "secret"))
    found = load(tmp_path / "headrace.yaml", {}, NOW_S)
    stateful = manifests()["StatefulSet", "headrace"]["spec"]
    pod = stateful["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > found.drain_timeout_s + DRAIN_GRACE_S
    [container] = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert found.state_dir.is_relative_to(mounts["state"])
    assert secret == f"{mounts['secrets']}/kafka-password"
    assert "kafka-password" in manifests()["Secret", "headrace"]["stringData"]
    assert stateful["replicas"] == 1


def test_what_the_manifests_refer_to_is_among_them() -> None:
    found = manifests()
    stateful = found["StatefulSet", "headrace"]["spec"]
    pod = stateful["template"]["spec"]
    for volume in pod["volumes"]:
        if "configMap" in volume:
            data = found["ConfigMap", volume["configMap"]["name"]]["data"]
            assert {item["key"] for item in volume["configMap"].get("items", ())} <= set(data)
        if "secret" in volume:
            assert ("Secret", volume["secret"]["secretName"]) in found
    declared = {
        volume["name"] for volume in (*pod["volumes"], *(c["metadata"] for c in stateful["volumeClaimTemplates"]))
    }
    for container in (*pod["containers"], *pod["initContainers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= declared
    service = found["Service", stateful["serviceName"]]["spec"]
    assert service["selector"].items() <= stateful["template"]["metadata"]["labels"].items()
    ports = {port["name"] for container in pod["initContainers"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= ports
