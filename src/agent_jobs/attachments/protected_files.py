"""Refuse files that may contain secrets, and git's own files."""

import re
from collections.abc import Generator
from fnmatch import fnmatchcase

from agent_jobs.attachments.path_names import Names, printable_path
from agent_jobs.errors import RequestError

#: Names of files with keys and passwords. A user who wants a model to see such a file copies it under another name.
SECRET_FOLDERS = {".aws", ".azure", ".docker", ".gcloud", ".gnupg", ".kube", ".password-store", ".ssh"}
SECRET_FILES = (
    ".env", ".env.*", ".envrc", ".netrc", "_netrc", ".npmrc", ".pypirc", ".pgpass", ".htpasswd", ".git-credentials",
    ".vault-token", "id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "credentials.json",
    "client_secret*.json", "*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx", "*.tfstate",
    "*.tfstate.*", "shadow", "gshadow", "master.passwd",
)  # fmt: skip
NO_SECRETS = (".env.example", ".env.sample", ".env.template", ".env.dist")

#: What programs and people add to the name of a file to keep an earlier version of it, also before its ending.
_BACKUP_MARK = re.compile(
    r"^(?:\.?#|copy of )"
    r"|(?:[-~#]+|[._ ~-]+(?:(?:backup|back|bak|bck|bkp|copy|kate-swp|new|old|orig|original|prev|save|saved|sw[a-z]|tmp"
    r"|un|dpkg-\w+|ucf-\w+|pac(?:save|new|orig)|rpm(?:save|new|orig))\d*|\d[\dtz:]*)| ?\(\d+\))(?=(?:\.\w+)?$)"
)


class RefusedFileError(RequestError):
    """A file that cannot be attached: refused if the caller named it, left out and counted by `reason` in a glob."""

    def __init__(self, problem: str, code: str, /, *, reason: str, **data: object) -> None:
        super().__init__(problem, code, **data)
        self.reason = reason


def refuse_protected(names: Names) -> None:
    """Refuse git's own files, and files with the name of a secret file.

    Raises:
        RefusedFileError: It is protected.
    """
    lower = [*map(str.lower, names)]
    if ".git" in lower:
        path = printable_path(names)
        raise RefusedFileError(
            "{path} belongs to git, so it is not attached.", "git_file", reason="git's own", path=path
        )
    if any(map(_is_secret_folder, lower)) or (lower and _is_secret_name(lower[-1])):
        raise secret_error(names)


def is_protected(names: Names) -> bool:
    """Return True if `refuse_protected` refuses the file."""
    try:
        refuse_protected(names)
    except RefusedFileError:
        return True
    return False


def secret_error(names: Names) -> RefusedFileError:
    """Return the refusal of a file that seems to contain a secret."""
    return RefusedFileError(
        "{path} seems to contain keys or passwords, so it is not attached.",
        "secret_file",
        reason="seem to contain secrets",
        path=printable_path(names),
    )


def unreadable_error(names: Names, error: OSError) -> RefusedFileError:
    """Return the refusal of a file that the system does not open."""
    return RefusedFileError(
        "{path} cannot be read ({cause}).",
        "unreadable_file",
        reason="unreadable",
        path=printable_path(names),
        cause=error.strerror,
    )


def _is_secret_folder(name: str) -> bool:
    return not SECRET_FOLDERS.isdisjoint(_strip_backup_marks(name))


def _is_secret_name(name: str) -> bool:
    if name in NO_SECRETS:
        return False
    return any(fnmatchcase(each, pattern) for each in _strip_backup_marks(name) for pattern in SECRET_FILES)


def _strip_backup_marks(name: str) -> Generator[str]:
    """Yield a name and those of the files whose backup it may be: `.id_rsa.swp`, `.id_rsa` and `id_rsa`."""
    original = None
    while name != original:
        yield name
        yield name.lstrip(".")  # swap files are hidden
        original, name = name, _BACKUP_MARK.sub("", name)
