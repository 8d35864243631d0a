"""Getting what the servers need: jars from Maven Central, Python environments, test certificates."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

from tests.services.process import HOME, ServiceError, lock, say

INSTALL_TIMEOUT_S = 900

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>headrace.services</groupId><artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{}</dependencies></project>
"""
DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"

NEW_KEY = "-newkey rsa:2048 -nodes"
VALID = "-days 3650"
LEAF_EXTENSIONS = "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\nauthorityKeyIdentifier=keyid\n"


def run(
    *command: str | os.PathLike[str], cwd: pathlib.Path | None = None, environment: Mapping[str, str] | None = None
) -> None:
    """Run a command to its end; a failure carries the tail of what it printed."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        msg = f"{command[0]} did not end in {INSTALL_TIMEOUT_S} s"
        raise ServiceError(msg) from error
    if done.returncode:
        shown = " ".join(os.fspath(word) for word in command[:6])
        msg = f"{shown} ... ended with status {done.returncode}:\n{done.stdout[-3000:]}"
        raise ServiceError(msg)


def tool(name: str, hint: str) -> str:
    found = shutil.which(name)
    if not found:
        msg = f"{name} is not on PATH: {hint}"
        raise ServiceError(msg)
    return found


def java() -> str:
    return tool("java", "install a Java 17 runtime or newer (Debian: openjdk-17-jre-headless)")


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Print what begins, and how long it took once it ends."""
    say(f"{text} ...")
    began = time.monotonic()
    yield
    say(f"{text}: done in {time.monotonic() - began:.1f} s")


@contextlib.contextmanager
def fresh_folder(folder: pathlib.Path, content: str) -> Iterator[pathlib.Path | None]:
    """Give an empty folder to fill, or None when it holds `content` already; half-filled ones are made again."""
    mark = folder / ".complete"
    digest = hashlib.sha256(content.encode()).hexdigest()
    with lock(f"install-{folder.name}"):
        if mark.exists() and mark.read_text() == digest:
            yield None
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        yield folder
        mark.write_text(digest)


def maven_jars(folder: pathlib.Path, artifacts: list[tuple[str, str, str]], what: str) -> pathlib.Path:
    """Fetch these artifacts and what they need at run time; returns the folder with the jars."""
    pom = POM.format("".join(DEPENDENCY.format(*artifact) for artifact in artifacts))
    with fresh_folder(folder, pom) as target:
        if target:
            java()
            maven = tool("mvn", "install Maven (Debian: maven)")
            (target / "pom.xml").write_text(pom)
            goal = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target / 'jars'}")
            with step(what):
                run(maven, "-q", "-B", "-f", target / "pom.xml", *goal)
    return folder / "jars"


def find_python(wanted: tuple[str, ...]) -> str:
    """An interpreter of one of these versions: $HEADRACE_SERVICES_PYTHON, this one, on PATH, then pyenv's."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv")
    candidates = [os.environ.get("HEADRACE_SERVICES_PYTHON"), sys.executable]
    for version in wanted:
        candidates.append(shutil.which(f"python{version}"))
        candidates += [str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)]
    for candidate in candidates:
        if candidate and python_version(candidate) in wanted:
            return candidate
    msg = f"no CPython {' or '.join(wanted)} on PATH or in pyenv: install one, or name it in HEADRACE_SERVICES_PYTHON"
    raise ServiceError(msg)


def python_version(interpreter: str) -> str:
    """Ask an interpreter for its version; empty when it does not run (a pyenv shim of an inactive version)."""
    question = [interpreter, "-c", "import sys, ensurepip; print('%d.%d' % sys.version_info[:2])"]
    try:
        return subprocess.run(question, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def virtual_environment(folder: pathlib.Path, requirements: pathlib.Path, wanted: tuple[str, ...], what: str) -> str:
    """Make an environment with these requirements; returns its interpreter."""
    with fresh_folder(folder, requirements.read_text()) as target:
        if target:
            python = find_python(wanted)
            with step(what):
                run(python, "-m", "venv", target)
                run(target / "bin" / "python", "-m", "pip", "install", "-q", "-r", requirements)
    return str(folder / "bin" / "python")


def certificates(user: str) -> pathlib.Path:
    """Make a test authority, a server certificate for localhost and a client certificate; returns their folder."""
    folder = HOME / "tls"
    with fresh_folder(folder, user) as target:
        if target:
            make_authority(target)
            make_certificate(target, "server", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")
            make_certificate(target, "client", user, "extendedKeyUsage=clientAuth")
            # Kafka's PEM key store is one file: the private key, then its certificate chain
            chain = [(target / name).read_text() for name in ("server.key", "server.crt", "ca.crt")]
            (target / "server.pem").write_text("".join(chain))
    return folder


def openssl(folder: pathlib.Path, arguments: str) -> None:
    run(tool("openssl", "install the package openssl"), *shlex.split(arguments), cwd=folder)


def make_authority(folder: pathlib.Path) -> None:
    usage = "-addext keyUsage=critical,keyCertSign,cRLSign"
    openssl(folder, f"req -x509 {NEW_KEY} -keyout ca.key -out ca.crt {VALID} -subj '/CN=headrace test CA' {usage}")


def make_certificate(folder: pathlib.Path, who: str, name: str, extension: str) -> None:
    (folder / f"{who}.ext").write_text(f"{LEAF_EXTENSIONS}{extension}\n")
    openssl(folder, f"req {NEW_KEY} -keyout {who}.key -out {who}.csr -subj '/CN={name}'")
    authority = "-CA ca.crt -CAkey ca.key -CAcreateserial"
    openssl(folder, f"x509 -req -in {who}.csr -out {who}.crt {authority} {VALID} -extfile {who}.ext")
