# The server on stdin and stdout:  docker run -i --rm -e OPENAI_API_KEY -v agent-jobs-data:/data agent-jobs
# The server of a team:            packaging/team/compose.yaml
FROM python:3.13-slim AS build
COPY pyproject.toml hatch_build.py README.md LICENSE /src/
COPY src /src/src
RUN python -m venv /opt/agent-jobs && /opt/agent-jobs/bin/pip install --no-cache-dir "/src[team,otel]"

FROM python:3.13-slim
LABEL io.modelcontextprotocol.server.name="io.github.OWNER/agent-jobs" \
      org.opencontainers.image.title="agent-jobs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.source="https://github.com/OWNER/agent-jobs" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --create-home agent && install -d -o agent -g agent -m 700 /data
COPY --from=build /opt/agent-jobs /opt/agent-jobs
ENV PATH=/opt/agent-jobs/bin:$PATH AGENT_JOBS_DATA_DIR=/data
USER 10001
VOLUME /data
# There is no port to ask: the process lives as long as its host holds stdin, and needs a folder that takes its jobs.
HEALTHCHECK --interval=1m --timeout=5s CMD ["test", "-w", "/data"]
ENTRYPOINT ["agent-jobs"]
