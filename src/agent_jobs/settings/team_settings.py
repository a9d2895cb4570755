"""Declare the settings of the team server."""

from dataclasses import dataclass
from pathlib import Path

from agent_jobs.settings import address_values as addresses
from agent_jobs.settings import path_values, values
from agent_jobs.settings.declaration import TEAM, declare_setting
from agent_jobs.settings.values import SecretStr


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamSettings:
    """What the operator of a team server can set. The base of `Settings`."""

    owner_keys_dir: Path | None = declare_setting(
        "AGENT_JOBS_OWNER_KEYS_DIR",
        TEAM,
        path_values.existing_folder(),
        "A folder with API keys of owners of a team server, a file each. agent-jobs owner set --key-ref names one.",
        page="team.md#owners-and-limits",
    )
    toolbox_owners: tuple[str, ...] = declare_setting(
        "AGENT_JOBS_TOOLBOX_OWNERS",
        TEAM,
        values.owner_names(),
        "The owners of a team server whose jobs may use AGENT_JOBS_TOOLBOX, separated by commas. They get your rights.",
        page="team.md#owners-and-limits",
    )
    host: str = declare_setting(
        "AGENT_JOBS_HOST",
        TEAM,
        addresses.host_name(),
        "The address that agent-jobs serve --http listens on.",
        default="127.0.0.1",
        page="team-install.md",
    )
    port: int = declare_setting(
        "AGENT_JOBS_PORT",
        TEAM,
        addresses.port_number(),
        "The port of agent-jobs serve --http; 0 chooses a free one.",
        default="8000",
        page="team-install.md",
    )
    public_url: str | None = declare_setting(
        "AGENT_JOBS_PUBLIC_URL",
        TEAM,
        addresses.origin_url("https://jobs.example.com"),
        "The address by which its users reach it, such as https://jobs.example.com. Requests for another host name are "
        "refused.",
        page="team-install.md#behind-a-balancer",
    )
    oauth_issuer: str | None = declare_setting(
        "AGENT_JOBS_OAUTH_ISSUER",
        TEAM,
        addresses.issuer_url("https://login.example.com"),
        "The issuer of OAuth access tokens that let callers in, exactly as its tokens name it.",
        page="team-sign-in.md#oauth",
    )
    oauth_jwks_url: str | None = declare_setting(
        "AGENT_JOBS_OAUTH_JWKS_URL",
        TEAM,
        addresses.issuer_url("https://login.example.com/jwks.json"),
        "Where the issuer publishes its keys. Without it the issuer's metadata says that.",
        page="team-sign-in.md#oauth",
    )
    oauth_introspection_url: SecretStr | None = declare_setting(
        "AGENT_JOBS_OAUTH_INTROSPECTION_URL",
        TEAM,
        addresses.introspection_url(),
        "The endpoint that judges each token instead of the keys, with the name and secret of this server in it.",
        page="team-sign-in.md#oauth",
    )
    owner_claim: str = declare_setting(
        "AGENT_JOBS_OWNER_CLAIM",
        TEAM,
        values.header("the name of a claim"),
        "The claim of an access token that names the owner within its issuer.",
        default="sub",
        page="team-sign-in.md#oauth",
    )
    drain_s: float = declare_setting(
        "AGENT_JOBS_DRAIN_S",
        TEAM,
        values.seconds(0, 600),
        "How long it still answers after SIGTERM, while /readyz fails. Two intervals of the balancer are enough.",
        default="5",
        page="team-install.md#behind-a-balancer",
    )
    metrics_token_file: Path | None = declare_setting(
        "AGENT_JOBS_METRICS_TOKEN_FILE",
        TEAM,
        path_values.absolute_path(),
        "A file with the bearer token that Prometheus sends. Without it there is no /metrics.",
        page="team-metrics.md",
    )
