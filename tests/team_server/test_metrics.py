"""Prometheus reads a bounded number of figures, and needs a token of its own."""

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from team_servers import serving_team

from agent_jobs.engine.metrics import EngineMetrics
from agent_jobs.errors import ConfigError
from agent_jobs.settings.settings import Settings
from agent_jobs.store.team_records import OwnerMetrics, StoreMetrics
from agent_jobs.team_server.metrics import MAX_OWNERS, OTHERS, SINGLE_USER, list_metrics, read_metrics_token

TOKEN = "a-token-for-prometheus-0123456789"


def read_samples(text: str) -> dict[tuple[str, ...], float]:
    families = list(text_string_to_metric_families(text))
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


async def test_prometheus_reads_figures_only_with_its_own_token(team_settings: Settings, tmp_path: Path) -> None:
    tokens = tmp_path / "token"
    tokens.write_text(f"{TOKEN}\n")
    settings = replace(team_settings, data_dir=tmp_path / "data", metrics_token_file=tokens)
    async with serving_team(settings) as team, team.http() as http:
        token_of_ada = await team.add_token("ada")
        async with team.host(token_of_ada, "modern") as host:
            await host.start("a prompt of nobody else", emulate={"end": "never"})
            finished = await host.start(emulate={"duration_s": 0.2})
            await host.end(finished["job_id"])
        for wrong in ({}, {"Authorization": f"Bearer {token_of_ada}"}, {"Authorization": TOKEN}):
            assert (await http.get("/metrics", headers=wrong)).status_code == 401
        answer = await http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
        samples = read_samples(answer.text)
        assert samples["agent_jobs_jobs", "completed"] == 1
        assert sum(value for key, value in samples.items() if key[:2] == ("agent_jobs_active_jobs", "ada")) == 1
        assert samples["agent_jobs_starts_total",] == 2
        assert samples["agent_jobs_polls_total",] >= 1
        assert ("agent_jobs_cost_today_usd", "ada") in samples
        assert ("agent_jobs_step_lateness_seconds",) in samples
        for secret in (TOKEN, token_of_ada, "sk-secret", "a prompt of nobody else"):
            assert secret not in answer.text


def test_cost_of_an_owner_has_a_label_after_the_last_job_ended() -> None:
    running = [(f"runs {number:02}", "in_progress", 1) for number in range(MAX_OWNERS - 2)]
    costs = [("ended", 2.0), ("dear", 3.0), ("cheap", 0.1), ("", 9.0), ("runs 00", 1.0)]
    stored = StoreMetrics(OwnerMetrics([("", "pending", 99), *running], costs), {}, None, None, (3, 1))
    by_name = {metric.name: metric for metric in list_metrics(EngineMetrics(stored, 0, 0, 0, 0, 0, None, 0.0))}
    samples = {sample.labels["owner"]: sample.value for sample in by_name["agent_jobs_cost_today_usd"].samples}
    assert samples == {"ended": 2.0, "dear": 3.0, OTHERS: 0.1, SINGLE_USER: 9.0, "runs 00": 1.0}


def test_number_of_labels_is_bounded() -> None:
    owners = [(f"owner {number}", "in_progress", number) for number in range(1, 200)]
    costs = [(owner, 1.0) for owner, *_ in owners]
    stored = StoreMetrics(OwnerMetrics([("", "pending", 1), *owners], costs), {}, None, None, (3, 1))
    figures = EngineMetrics(stored, 0, 0, 0, 0, 0, None, 0.0)
    by_name = {metric.name: metric for metric in list_metrics(figures)}
    labels = {sample.labels["owner"] for sample in by_name["agent_jobs_active_jobs"].samples}
    assert len(labels) == MAX_OWNERS + 2
    assert {OTHERS, SINGLE_USER, "owner 199"} <= labels
    assert sum(sample.value for sample in by_name["agent_jobs_cost_today_usd"].samples) == 199
    assert by_name["agent_jobs_webhook_age_seconds"].samples == []


@pytest.mark.parametrize("content", ["", "short", "\n" + TOKEN, "ü" * 30])
def test_unusable_token_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(ConfigError):
        read_metrics_token(path)
    with pytest.raises(ConfigError):
        read_metrics_token(tmp_path / "none")
