"""Check an entry by which a host reaches a team server at its address."""

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from agent_jobs.cli.checks.finding import Finding, State
from agent_jobs.cli.checks.variable_references import list_references, resolve_references
from agent_jobs.install.hosts import Entry, Host
from agent_jobs.install.machine import Machine
from agent_jobs.install.remote import MCP_PATH
from agent_jobs.jobs.response import mapping_of, string_of
from agent_jobs.team_server.ready_probe import READY_PATH, NoAnswerError, NoWebAddressError, fetch_ready_status


@dataclass(frozen=True)
class RemoteEntry:
    """An entry with the address of a team server."""

    host: Host
    entry: Entry
    where: str
    install: str  #: the command that writes the entry again, without its options
    machine: Machine

    def check(self) -> list[Finding]:
        """Return the finding of the address: why the host cannot use it, or that it can."""
        findings = [*self._check_server(), *self._check_token()]
        if findings:
            return findings
        return [
            self._report_entry("ok", f"connects to {self._shown_url}, which is ready{self._describe_token_variable()}")
        ]

    @property
    def _resolved_url(self) -> str:
        value = str(self.entry["url"])
        if self.host.fills_references:
            value = resolve_references(value, self.machine.environ)
        return value

    @property
    def _shown_url(self) -> str:
        """Return the address without name, password and query."""
        try:
            parts = urlsplit(self._resolved_url)
        except ValueError:
            return "an address that cannot be read"
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()

    def _check_server(self) -> Iterator[Finding]:
        """Yield a finding if the server does not answer, or is not ready."""
        about = f"connects to {self._shown_url}"
        correct = f"correct the address: {self.install} --url URL"
        start = f"start it there with agent-jobs serve --http, or {correct}"
        base_url, _, _ = self._resolved_url.partition("?")
        try:
            status = fetch_ready_status(base_url.rstrip("/").removesuffix(MCP_PATH))
        except NoAnswerError as error:
            yield self._report_entry("problem", f"{about}, which {error}", start)
            return
        except NoWebAddressError:
            yield self._report_entry("problem", f"{about}, which is not a web address", correct)
            return
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            fix = "wait a moment, then run agent-jobs doctor again; if it stays so, ask the operator of the server"
            yield self._report_entry("warning", f"{about}, which is not ready (503)", fix)
        elif status != HTTPStatus.OK:
            text = f"{about}, which answers {READY_PATH} with {status}, unlike a team server of agent-jobs"
            yield self._report_entry("problem", text, correct)

    def _check_token(self) -> Iterator[Finding]:
        """Yield a finding if a variable that holds the token is not set here."""
        for name in self._list_token_variables():
            if not self.machine.environ.get(name):
                fix = f"set {name} to your token in the environment in which {self.host.title} starts"
                yield self._report_entry("warning", f"takes the token from {name}, which is not set here", fix)

    def _describe_token_variable(self) -> str:
        names = self._list_token_variables()
        if names:
            return f"; {names[0]} is set"
        return ""

    def _list_token_variables(self) -> list[str]:
        """Return the names of the variables that may hold the token for the host."""
        if named := string_of(self.entry.get("bearer_token_env_var")):
            return [named]
        if not self.host.fills_references:
            return []
        headers = mapping_of(self.entry.get("headers"))
        return list_references(" ".join(str(headers[name]) for name in headers if name.lower() == "authorization"))

    def _report_entry(self, state: State, text: str, fix: str = "") -> Finding:
        return Finding("host", state, f"{self.where} {text}", fix)
