"""Refuse a file that cannot be attached, and print paths safely."""

from fnmatch import fnmatchcase
from unicodedata import category

from agent_jobs.errors import RequestError
from agent_jobs.text import valid_unicode

#: The names of a path below its root, one by one.
Names = tuple[str, ...]

#: Names that stand for keys and passwords. A user who wants a model to see such a file copies it under another name.
SECRET_FOLDERS = {".aws", ".azure", ".docker", ".gcloud", ".gnupg", ".kube", ".password-store", ".ssh"}
SECRET_FILES = (
    ".env", ".env.*", ".envrc", ".netrc", "_netrc", ".npmrc", ".pypirc", ".pgpass", ".htpasswd", ".git-credentials",
    ".vault-token", "id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "credentials.json",
    "client_secret*.json", "*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx", "*.tfstate",
    "*.tfstate.*", "shadow", "gshadow", "master.passwd",
)  # fmt: skip
NO_SECRETS = (".env.example", ".env.sample", ".env.template", ".env.dist")


class UnfitError(RequestError):
    """A file that cannot be attached: refused if the caller named it, left out and counted by `reason` in a glob."""

    def __init__(self, problem: str, code: str, /, *, reason: str, **data: object) -> None:
        super().__init__(problem, code, **data)
        self.reason = reason


def refuse_protected(names: Names) -> None:
    """Refuse git's own files and files whose name stands for secrets.

    Raises:
        UnfitError: It is protected.
    """
    lower = [name.lower() for name in names]
    if ".git" in lower:
        path = printable_path(names)
        raise UnfitError("{path} is git's own and is not attached.", "git_file", reason="git's own", path=path)
    if SECRET_FOLDERS.intersection(lower) or (lower and _is_secret_name(lower[-1])):
        raise secret_error(names)


def is_protected(names: Names) -> bool:
    """Return True if `refuse_protected` refuses the file."""
    try:
        refuse_protected(names)
    except UnfitError:
        return True
    return False


def secret_error(names: Names) -> UnfitError:
    """Return the refusal of a file that seems to hold a secret."""
    return UnfitError(
        "{path} seems to hold keys or passwords and is not attached.",
        "secret_file",
        reason="seem to hold secrets",
        path=printable_path(names),
    )


def unreadable_error(names: Names, error: OSError) -> UnfitError:
    """Return the refusal of a file that the system does not open."""
    return UnfitError(
        "{path} cannot be read ({cause}).",
        "unreadable_file",
        reason="unreadable",
        path=printable_path(names),
        cause=error.strerror,
    )


def printable_path(names: Names) -> str:
    """Return a path for a person or a model to read: no character in it ends a line or is invisible."""
    text = valid_unicode("/".join(names))
    return "".join(map(_replace_unprintable, text)) or "."


def _is_secret_name(name: str) -> bool:
    return name not in NO_SECRETS and any(fnmatchcase(name, pattern) for pattern in SECRET_FILES)


def _replace_unprintable(char: str) -> str:
    if char.isprintable():
        return char
    if category(char) == "Zs":
        return " "
    return "?"
