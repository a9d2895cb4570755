"""Word fixes for owners of a team server, who can change neither its settings nor its machine."""

from collections.abc import Mapping

OPERATOR = "the operator of this server"
_NO_SECRETS = "Leave it out: jobs of a team server get no secrets."
_UPLOAD = 'Send the file with PUT /files/NAME to this server, and name the "upload:..." of its answer.'

#: What an owner can do in place of what the user of the machine could, by the code of the error. Each face has more.
OWNER_FIXES: Mapping[str, str] = {
    "file_roots_gone": _UPLOAD,
    "literal_secret": _NO_SECRETS,
    "no_file_roots": _UPLOAD,
    "no_key": f"Ask {OPERATOR} to set a key, then try again.",
    "not_sending": f"Ask {OPERATOR} to start it so that it sends jobs.",
    "owner_budget_spent": f"Wait until midnight UTC, or ask {OPERATOR} to raise it.",
    "owner_key_missing": f"Ask {OPERATOR} to put it back, or to name another one.",
    "secret_not_allowed": _NO_SECRETS,
    "shared_id": f"Ask {OPERATOR} for a key of your own.",
    "unset_secret": _NO_SECRETS,
}


def ask_operator(step: str) -> str:
    """Return the sentence with which an owner's model asks for a step that only the operator can do."""
    return f"Ask {OPERATOR} to {step}."


def pass_on_to_operator(text: str) -> str:
    """Return a mistake in a setting, whose sentences address the operator."""
    return f"Ask {OPERATOR} to change a setting. {text}"
