"""Do deep research with any model: a plan, simultaneous research of its questions, a report with numbered sources.

uv run examples/research.py "Which heat pumps work below -20 °C, and what do they cost to run?"
"""

import json
import sys
from typing import Any

import anyio
from batch import iterate_results
from start_and_poll import read_output, wait_until_done
from tools import Call, open_tools

PLAN = """Plan the research that answers the question below: three to five questions that can be researched on the web \
independently of each other, each standing on its own, together covering what matters.

{question}"""
PLAN_SCHEMA = {
    "type": "object",
    "properties": {"questions": {"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 5}},
    "required": ["questions"],
    "additionalProperties": False,
}
REPORT = """Write a report that answers this question: {question}

Use only the findings below. First the answer in a few sentences, then the reasons, then what they leave open or \
contradict. Cite sources by their numbers, like [3].

{findings}

Sources:
{sources}"""


async def plan_research(call: Call, question: str) -> list[str]:
    plan = {"prompt": PLAN.format(question=question), "preset": "think", "options": {"json_schema": PLAN_SCHEMA}}
    answer = await wait_until_done(call, await call("agent_start", **plan))
    assert "invalid" not in answer, answer["invalid"]
    return json.loads(await read_output(call, answer["job_id"]))["questions"]


async def research_questions(call: Call, questions: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the findings for each question, and the sources by their addresses: numbers with titles."""
    started = await call("agent_start", prompts=questions, preset="deep_research")
    asked = dict(zip(started["job_ids"], questions, strict=True))
    findings: list[str] = []
    sources: dict[str, str] = {}
    async for job in iterate_results(call, started["batch"]):
        text = await read_output(call, job["job_id"])
        listed: list[dict[str, Any]] = (await call("agent_result", job_id=job["job_id"], part="sources"))["sources"]
        cited = [source for source in listed if source.get("cited") and "url" in source]
        for source in cited:
            sources.setdefault(source["url"], f"[{len(sources) + 1}] {source.get('title', '')} {source['url']}")
        numbers = " ".join(sources[source["url"]].split()[0] for source in cited)
        findings.append(f"## {asked[job['job_id']]}\n\n{text or 'Nothing was found.'}\n\nSources: {numbers}")
        print(f"{len(findings)} of {len(questions)} questions: {job['status']}, {len(cited)} sources", flush=True)
    return findings, sources


async def main() -> None:
    question = " ".join(sys.argv[1:]) or "Which heat pumps work below -20 °C, and what do they cost to run?"
    async with open_tools() as call:
        questions = await plan_research(call, question)
        print("\n".join(["The plan:", *questions, ""]), flush=True)
        findings, sources = await research_questions(call, questions)
        assert len(findings) == len(questions)
        assert sources, "research cites what it read"
        numbered = "\n".join(sources.values())
        written = REPORT.format(question=question, findings="\n\n".join(findings), sources=numbered)
        answer = await wait_until_done(call, await call("agent_start", prompt=written, effort="high"))
        print(f"\n{await read_output(call, answer['job_id'])}\n\n{numbered}")


if __name__ == "__main__":
    anyio.run(main)
