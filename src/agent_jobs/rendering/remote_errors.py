"""Hide what an error says of the server's machine from callers who are not its user."""

from agent_jobs.errors import AgentJobsError, StoreError


def hide_machine_details(error: AgentJobsError) -> AgentJobsError:
    """Return the error for a caller who is not this machine's user: without paths and addresses of the database."""
    errors = (error, *error.data.values())
    if not any(isinstance(each, StoreError) for each in errors):
        return error
    return StoreError("The server's database cannot be used now.", "server_database")
