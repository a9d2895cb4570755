"""The compose file of the team server and its balancer is correct. These tests need no container engine."""

import json
import os
import re
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from installed_haproxy import NEEDS_HAPROXY, NO_HAPROXY, find_haproxy
from ruamel.yaml import YAML  # pyright: ignore[reportMissingTypeStubs]

from agent_jobs.cli.main import cli
from agent_jobs.settings.settings import VARIABLES, Settings

TEAM = Path(__file__).parents[2] / "packaging/team"
COMPOSE: dict[str, Any] = YAML(typ="safe").load(TEAM / "compose.yaml")  # pyright: ignore[reportUnknownMemberType]
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
#: A variable of the shell, with its default.
SHELL_VARIABLE = re.compile(r"\$\{\w+:-([^}]*)\}")
#: The services that run this program, with their commands.
OURS = {name: service["command"] for name, service in SERVICES.items() if service["image"].startswith("agent-jobs:")}


def read_environment(service: dict[str, Any]) -> dict[str, str]:
    return {name: SHELL_VARIABLE.sub(r"\1", value) for name, value in service["environment"].items()}


def test_compose_file_follows_the_compose_specification():
    schema = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    jsonschema.validate(COMPOSE, json.loads(schema.read_text()))


def test_services_are_the_parts_of_a_team_server():
    assert {*SERVICES} == {"database", "upgrade", "replica-1", "replica-2", "balancer"}
    assert OURS == {
        "upgrade": ["db", "upgrade"],
        "replica-1": ["serve", "--http"],
        "replica-2": ["serve", "--http"],
    }
    for name in ("replica-1", "replica-2"):
        assert SERVICES[name]["depends_on"]["upgrade"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("command", OURS.values(), ids=OURS)
def test_command_of_a_service_exists(command: list[str]):
    assert CliRunner().invoke(cli, [*command, "--help"]).exit_code == 0


@pytest.mark.parametrize("name", SERVICES)
def test_container_has_only_the_rights_that_it_needs(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])
    assert "test" in service["healthcheck"] or name == "upgrade"
    assert ("ports" in service) == (name == "balancer")
    assert "privileged" not in service


def test_only_replicas_reach_the_database():
    reached = {name for name, service in SERVICES.items() if "database" in service["networks"]}
    assert reached == {"database", *OURS}
    assert COMPOSE["networks"]["database"] == {"internal": True}


@pytest.mark.parametrize("name", OURS)
def test_settings_of_a_replica_are_settings_of_this_program(name: str, tmp_path: Path):
    environment = read_environment(SERVICES[name])
    others = {"FORWARDED_ALLOW_IPS"}  # a variable of uvicorn
    assert [each for each in environment if each not in VARIABLES and each not in others] == []
    paths = [path for path in environment.values() if path.startswith("/run/secrets/")]
    assert {Path(path).name for path in paths} == {*SERVICES[name]["secrets"]} <= {*COMPOSE["secrets"]}
    for each, value in environment.items():
        if value in paths:
            (tmp_path / Path(value).name).write_text("sk-0123456789abcdefghij")
            environment[each] = str(tmp_path / Path(value).name)
    settings = Settings.from_env(environment)
    assert settings.warnings == ()
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)


def test_no_secret_is_in_the_file():
    assert all({*secret} == {"file"} for secret in COMPOSE["secrets"].values())
    text = (TEAM / "compose.yaml").read_text()
    assert re.findall(r"(?i)\w*(?:password|key|token|secret)\w*: *\"?(?!/run/secrets/|\{ file|\[)\S.*", text) == []


def test_images_are_pinned_and_the_own_image_has_this_version():
    [label] = re.findall(r'image\.version="(.*?)"', (TEAM / "../../Dockerfile").read_text())
    assert {SERVICES[name]["image"] for name in OURS} == {f"agent-jobs:{label}"}
    assert all(re.search(r":\d+(\.\d+)*(-\w+)?$", service["image"]) for service in SERVICES.values())
    assert SERVICES["upgrade"]["build"] == {"context": "../.."}


def test_image_has_what_a_team_server_needs():
    assert re.search(r'pip install .*"/src\[team,otel\]"', (TEAM / "../../Dockerfile").read_text())


def test_replicas_of_the_balancer_are_services():
    config = (TEAM / "haproxy.cfg").read_text()
    ports = {f"{name}:{read_environment(SERVICES[name])['AGENT_JOBS_PORT']}" for name in ("replica-1", "replica-2")}
    assert {*re.findall(r"presetenv REPLICA_\d (\S+)", config)} == ports
    [published] = SERVICES["balancer"]["ports"]
    assert re.findall(r"presetenv BIND (\S+)", config) == [f":{SHELL_VARIABLE.sub('', published).strip(':')}"]
    assert SHELL_VARIABLE.findall(published) == ["127.0.0.1:8000"], (
        "only this machine can connect, unless the operator sets another address"
    )


@pytest.mark.skipif(find_haproxy() is None and NEEDS_HAPROXY not in os.environ, reason=NO_HAPROXY)
def test_balancer_accepts_its_configuration():
    path = find_haproxy()
    assert path is not None
    checked = subprocess.run([path, "-c", "-f", TEAM / "haproxy.cfg"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    warnings = re.findall(r"\[WARNING\].*", checked.stderr)
    assert [each for each in warnings if "could not resolve address" not in each] == []
