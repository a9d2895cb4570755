"""The released wheel, bundle and image are complete and have the same version."""

import json
import re
import shutil
import struct
import subprocess
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from hatch_build import make_links_absolute
from hatchling.build import build_sdist, build_wheel
from jsonschema import Draft7Validator

from agent_jobs import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SERVER: dict[str, Any] = json.loads((ROOT / "server.json").read_text())
MANIFEST: dict[str, Any] = json.loads((ROOT / "packaging/mcpb/manifest.json").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SETTINGS = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel with the build backend in this environment, without the network."""
    folder = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return zipfile.ZipFile(folder / build_wheel(str(folder)))


def test_wheel_has_only_the_package_and_its_data(wheel: zipfile.ZipFile):
    source = ROOT / "src"
    kept = {
        str(path.relative_to(source))
        for path in (source / "agent_jobs").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == kept
    assert {"agent_jobs/py.typed", "agent_jobs/store/schema.sql"} <= kept
    assert {f"agent_jobs/data/{name}.toml" for name in ("models", "presets", "prices")} <= kept
    assert {"agent_jobs/page/html/base.html", "agent_jobs/page/static/htmx.min.js"} <= kept


def test_wheel_metadata_meets_pypi_and_the_registry(wheel: zipfile.ZipFile):
    info = f"agent_jobs-{__version__}.dist-info"
    metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("agent-jobs", __version__)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert f"<!-- mcp-name: {SERVER['name']} -->" in str(metadata.get_payload())
    assert dict(str(each).split(", ", 1) for each in metadata.get_all("Project-URL") or ()) == PROJECT["urls"]
    assert metadata["Author"] == MANIFEST["author"]["name"] == "The agent-jobs developers"
    assert wheel.read(f"{info}/entry_points.txt").decode().split("\n")[:2] == [
        "[console_scripts]", "agent-jobs = agent_jobs.__main__:main",
    ]  # fmt: skip
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


def test_readme_of_the_package_index_has_only_absolute_links_to_files_that_exist(wheel: zipfile.ZipFile):
    text = wheel.read(f"agent_jobs-{__version__}.dist-info/METADATA").decode().partition("\n\n")[2]
    links = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'(?:src|srcset|href)="([^"]+)"', text)]
    assert len(links) > 20
    assert [link for link in links if not link.startswith("https://")] == []
    base = re.escape(PROJECT["urls"]["Repository"])
    of_ours = re.compile(rf"{base}/(blob|raw)/v{re.escape(__version__)}/([\w./-]+)")
    found = [match for link in links if (match := of_ours.match(link))]
    assert all((ROOT / match[2]).exists() for match in found)
    assert {match[1] for match in found if match[2].endswith(".svg")} == {"raw"}
    assert {match[1] for match in found if match[2].endswith(".md")} == {"blob"}
    # Apart from the links, the text is that of the repository.
    shorter = of_ours.sub(r"\2", text)
    assert shorter.split() == (ROOT / "README.md").read_text().split()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[a](docs/a.md#b)", "[a](PAGES/docs/a.md#b)"),
        ("[a](#b)", "[a](PAGES/README.md#b)"),
        ("[a](https://b/c) [d](http://e)", "[a](https://b/c) [d](http://e)"),
        ("[![badge](docs/b.svg)](LICENSE)", "[![badge](PICTURES/docs/b.svg)](PAGES/LICENSE)"),
        ('<source srcset="a.svg">', '<source srcset="PICTURES/a.svg">'),
        ('<img alt="x" src="b.svg">', '<img alt="x" src="PICTURES/b.svg">'),
        ('<img src="https://a/b.svg">', '<img src="https://a/b.svg">'),
        ("a](b) and f(x)", "a](PAGES/b) and f(x)"),
    ],
)  # fmt: skip
def test_links_of_every_form_are_made_absolute(written: str, shown: str):
    assert make_links_absolute(written, "PAGES/", "PICTURES/") == shown


def test_sdist_has_everything_that_its_tests_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    name = build_sdist(str(tmp_path))
    listed = subprocess.run(["tar", "tzf", tmp_path / name], capture_output=True, text=True, check=True).stdout.split()
    top = {Path(each).parts[1] for each in listed}
    assert {
        "src",
        "tests",
        "docs",
        "scripts",
        "packaging",
        "server.json",
        "Dockerfile",
        "README.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "hatch_build.py",
        ".dockerignore",
        ".github",
        ".ci",
        ".env.example",
    } <= top
    assert not top & {".venv", "dist", ".git", ".env", "uv.lock"}


def test_name_and_version_are_the_same_everywhere():
    [package] = SERVER["packages"]
    labels = dict(re.findall(r'([\w.]+)="(.*?)"', DOCKERFILE))
    readme = re.findall(r"mcp-name: (\S+)", (ROOT / "README.md").read_text())
    assert [SERVER["name"]] == readme == [labels["io.modelcontextprotocol.server.name"]]
    assert SERVER["name"].split("/")[1] == package["identifier"] == MANIFEST["name"] == PROJECT["name"] == "agent-jobs"
    versions = {
        "server.json": SERVER["version"],
        "its package": package["version"],
        "manifest.json": MANIFEST["version"],
        "its command": MANIFEST["server"]["mcp_config"]["args"][-1].partition("@")[2],
        "Dockerfile": labels["org.opencontainers.image.version"],
    }
    assert versions == dict.fromkeys(versions, __version__)


#: An address at the code host; its group is the name of the repository.
AT_THE_CODE_HOST = re.compile(r"https://(?:raw\.githubusercontent|github)\.com/([\w-]+/agent-jobs)\b")


def test_every_file_names_the_repository_of_the_project_s_metadata():
    repository = PROJECT["urls"]["Repository"]
    [name] = AT_THE_CODE_HOST.findall(repository)
    assert SERVER["name"] == f"io.github.{name}"
    assert all(url.startswith(repository) for url in PROJECT["urls"].values())
    assert MANIFEST["homepage"] == MANIFEST["repository"]["url"] == SERVER["repository"]["url"] == repository
    named = {path: set(AT_THE_CODE_HOST.findall(path.read_text())) for path in list_text_files(ROOT)}
    others = {str(path): names for path, names in named.items() if names - {name}}
    assert others == {}
    must = ("pyproject.toml", "server.json", "Dockerfile", "SECURITY.md", "packaging/mcpb/manifest.json")
    assert [each for each in must if name not in named[ROOT / each]] == []


def test_addresses_in_the_repository_lead_to_files_that_exist():
    in_repository = re.compile(rf"{AT_THE_CODE_HOST.pattern}/(?:(?:blob|tree|raw)/)?main/([\w./-]+\w)")
    found = {match[2] for path in list_text_files(ROOT) for match in in_repository.finditer(path.read_text())}
    assert {"docs", "docs/privacy.md", "CHANGELOG.md", "packaging/mcpb/icon.png"} <= found
    assert [name for name in found if not (ROOT / name).exists()] == []


def list_text_files(root: Path) -> list[Path]:
    """Return the files of the repository that may contain its address, without the tests."""
    folders = [root / name for name in ("docs", "packaging", "src", "examples")]
    files = [*root.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]
    return [path for path in files if path.suffix in {".md", ".json", ".toml", ".py"} or path.name == "Dockerfile"]


#: The rules of the registry's schema of 2025-12-11 for the fields that are used here.
TEXT = {"type": "string", "minLength": 1}
ADDRESS = {"type": "string", "pattern": "^https://", "maxLength": 255}
REGISTRY = {
    "type": "object",
    "additionalProperties": False,
    "required": ["$schema", "name", "description", "version", "packages"],
    "properties": {
        "$schema": {"const": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"},
        "name": {"type": "string", "pattern": "^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$", "minLength": 3, "maxLength": 200},
        "title": {**TEXT, "maxLength": 100},
        "description": {**TEXT, "maxLength": 100},
        "version": {**TEXT, "maxLength": 255},
        "websiteUrl": ADDRESS,
        "repository": {
            "type": "object",
            "additionalProperties": False,
            "required": ["url", "source"],
            "properties": {"url": ADDRESS, "source": {"const": "github"}},
        },
        "icons": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["src"],
                "properties": {
                    "src": ADDRESS,
                    "mimeType": {"enum": ["image/png", "image/svg+xml"]},
                    "sizes": {"type": "array", "items": {"type": "string", "pattern": r"^(\d+x\d+|any)$"}},
                },
            },
        },
        "packages": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["registryType", "identifier", "version", "transport"],
                "properties": {
                    "registryType": {"const": "pypi"},
                    "identifier": TEXT,
                    "version": {**TEXT, "not": {"const": "latest"}},
                    "runtimeHint": {"const": "uvx"},
                    "transport": {"const": {"type": "stdio"}},
                    "environmentVariables": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["name", "description"],
                            "properties": {
                                "name": {"enum": sorted(SETTINGS)},
                                "description": TEXT,
                                "default": {"type": "string"},
                                "format": {"enum": ["string", "number", "boolean", "filepath"]},
                                "isRequired": {"type": "boolean"},
                                "isSecret": {"type": "boolean"},
                            },
                        },
                    },
                },
            },
        },
    },
}


def test_registry_s_entry_keeps_to_its_schema():
    errors = [error.message for error in Draft7Validator(REGISTRY).iter_errors(SERVER)]  # pyright: ignore[reportUnknownMemberType]
    assert errors == []
    secret = [each["name"] for each in SERVER["packages"][0]["environmentVariables"] if each.get("isSecret")]
    assert secret == ["OPENAI_API_KEY"]


def test_bundle_asks_for_the_key_and_passes_on_every_field():
    server, fields = MANIFEST["server"], MANIFEST["user_config"]
    assert (MANIFEST["manifest_version"], server["type"]) == ("0.4", "uv")
    # Claude Desktop on Windows starts uv.exe for type uv, so the arguments must be those of uv, not of uvx.
    assert server["mcp_config"]["args"][:2] == ["tool", "run"]
    assert (ROOT / "packaging/mcpb" / server["entry_point"]).is_file()
    env = server["mcp_config"]["env"]
    assert env.keys() <= SETTINGS
    assert sorted(env.values()) == sorted(f"${{user_config.{name}}}" for name in fields)
    assert env["OPENAI_API_KEY"] == "${user_config.openai_api_key}"
    assert fields["openai_api_key"]["sensitive"] is True
    # If an optional field without a default is left empty, its value is the placeholder.
    assert all("default" in field for name, field in fields.items() if name != "openai_api_key")


def test_bundle_names_its_author_and_its_pages():
    repository = PROJECT["urls"]["Repository"]
    assert MANIFEST["documentation"] == PROJECT["urls"]["Documentation"]
    assert MANIFEST["support"] == PROJECT["urls"]["Issues"]
    assert MANIFEST["privacy_policies"] == [f"{repository}/blob/main/docs/privacy.md"]
    [icon] = MANIFEST["icons"]
    width, height = struct.unpack(">II", (ROOT / "packaging/mcpb" / icon["src"]).read_bytes()[16:24])
    assert (icon["src"], icon["size"], width, height) == (MANIFEST["icon"], "512x512", 512, 512)


def test_bundle_holds_the_files_that_its_manifest_names(tmp_path: Path):
    for name in ("bash", "dirname", "mkdir", "python3", "rm"):  # without npx, which would use the network
        program = shutil.which(name)
        assert program is not None
        (tmp_path / name).symlink_to(program)
    command = ["bash", ROOT / "scripts/mcpb", tmp_path / "dist"]
    subprocess.run(command, env={"PATH": str(tmp_path)}, check=True, capture_output=True)
    names = zipfile.ZipFile(tmp_path / "dist/agent-jobs.mcpb").namelist()
    assert set(names) == {"manifest.json", MANIFEST["server"]["entry_point"], MANIFEST["icon"]}


def read_dockerfile() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions as pairs of word and rest, with continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def test_image_is_slim_and_runs_the_server_as_an_unprivileged_user():
    lines = read_dockerfile()
    last = lines[len(lines) - [word for word, _ in lines][::-1].index("FROM") - 1 :]
    stage = dict(last)
    known = {"FROM", "COPY", "RUN", "LABEL", "ENV", "USER", "VOLUME", "HEALTHCHECK", "ENTRYPOINT"}
    assert {word for word, _ in lines} <= known
    assert all(re.fullmatch(r"python:3\.\d+-slim( AS build)?", rest) for word, rest in lines if word == "FROM")
    assert re.fullmatch(r"[1-9]\d*", stage["USER"]), "a number shows a container runtime that the user is not root"
    assert json.loads(stage["ENTRYPOINT"]) == [PROJECT["name"]]
    assert f"AGENT_JOBS_DATA_DIR={stage['VOLUME']}" in stage["ENV"].split()
    assert stage["VOLUME"] in json.loads(stage["HEALTHCHECK"].partition("CMD ")[2])
    order = [word for word, _ in last]
    assert order.index("RUN") < order.index("USER") < order.index("VOLUME"), (
        "the folder is its owner's before it becomes a volume"
    )
    assert not any(word in ("ENV", "COPY") and re.search("KEY|SECRET|TOKEN|\\.env", rest) for word, rest in lines)


def test_files_that_the_image_copies_exist_and_are_not_ignored():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [rest.split()[:-1] for word, rest in read_dockerfile() if word == "COPY" and not rest.startswith("--from")]
    assert {name for names in copied for name in names} == allowed
    assert all((ROOT / name).exists() for name in allowed)


@pytest.mark.parametrize("workflow", sorted((ROOT / ".github/workflows").iterdir()), ids=lambda path: path.name)
def test_workflow_only_calls_scripts_and_pins_what_it_uses(workflow: Path):
    text = workflow.read_text()
    called = re.findall(r"run: +(\S+)", text)
    assert called
    for command in called:
        script = ROOT / command
        assert command == ".ci/run" or command.startswith("scripts/")
        assert script.stat().st_mode & 0o111, f"{command} cannot be run"
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", used) for used in re.findall(r"uses: +(\S+)", text))
    assert re.search(r"^permissions:\n  contents: read$", text, re.M)
    assert "://" not in text


NAMING = (
    "server.json", "README.md", "Dockerfile", "pyproject.toml", "SECURITY.md", "packaging/mcpb/manifest.json",
    "packaging/codex-plugin/.codex-plugin/plugin.json",
)  # fmt: skip


def test_owner_script_changes_all_files_at_once(tmp_path: Path):
    for name in (*NAMING, "scripts/owner"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)

    def set_owner(owner: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([tmp_path / "scripts/owner", owner], capture_output=True, text=True, check=False)

    def read_names() -> set[str]:
        texts = [(tmp_path / name).read_text() for name in NAMING]
        found = [re.findall(r"(?:io\.github\.|github\.com/|content\.com/)([\w-]+/agent-jobs)", text) for text in texts]
        assert all(found)
        return {each for names in found for each in names}

    before = read_names()
    assert [set_owner(owner).returncode for owner in ("a/b", "-a", "a.b", "$(id)")] == [1] * 4
    assert read_names() == before
    assert [set_owner("Some-One").returncode for _ in range(2)] == [0, 0]
    assert read_names() == {"Some-One/agent-jobs"}
    other = set_owner("another")
    assert (other.returncode, "another owner" in other.stderr) == (1, True)
    assert read_names() == {"Some-One/agent-jobs"}


def test_nothing_is_published_under_the_placeholder_or_another_version(tmp_path: Path):
    def publish(tag: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([ROOT / "scripts/publish", tag], capture_output=True, text=True, check=False)

    other = publish("v0.0.0")
    assert (other.returncode, other.stdout) == (1, "")
    assert __version__ in other.stderr
    if "OWNER" in SERVER["name"]:
        refused = publish(f"v{__version__}")
        assert refused.returncode == 1
        assert "OWNER" in refused.stderr
