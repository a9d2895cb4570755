"""Recognise text that was put where an API key belongs but is no key. Pure."""

import re
from typing import NamedTuple

_SPLIT = r"[-_ ]?"
_PREFIX = r"(?:sk-(?:proj-|ant-|or-v1-)?)?"
#: Placeholders of examples. Words that local servers accept as keys (none, dummy, x) are not here.
_PLACEHOLDERS = (
    r"\.{2,}|…+",
    r"[x•*]{3,}(?:-[x•*]+)*",
    rf"(?:your|insert|paste|put|enter|replace|change|add|fill|example|sample)"
    rf"(?:{_SPLIT}(?:me|it|in|this|with|your|own|the|open|ai|azure|api|secret|key|token|here|value|goes))+",
    rf"my{_SPLIT}(?:openai{_SPLIT})?api{_SPLIT}key",
    rf"(?:openai{_SPLIT})?(?:api[-_ ])?(?:key|token)(?:{_SPLIT}goes)?{_SPLIT}here",
    rf"openai{_SPLIT}(?:api{_SPLIT})?key|api[-_ ]key",
    r"todo|fixme|tbd|placeholder|redacted",
)
#: References of hosts and shells to a value that is kept elsewhere.
_REFERENCES = (
    r"\$\w+|\$env:\w+|\$\(.*\)|`[^`]*\s[^`]*`",
    r".*\$\{[^{}]*\}.*",
    r"%\w+%",
    r"\{\{.*\}\}|\{(?:env|file|input|secret|user_config)[:.][^{}]*\}|<%.*%>",
    r"undefined|null|\[object object\]",
)
_NAME = r"(?=\w*(?:_|key|token|secret|auth))\w+"


class KeyMistake(NamedTuple):
    """A form that no key has."""

    pattern: re.Pattern[str]
    what: str  #: continues a sentence after the name of a setting
    fix: str = "Put the key there, alone."
    is_unset: bool = False  #: True if the host left its own reference there, so that nothing is set


def _key_mistake(pattern: str, *words: str, is_unset: bool = False) -> KeyMistake:
    return KeyMistake(re.compile(pattern, re.IGNORECASE | re.DOTALL), *words, is_unset=is_unset)


#: The first match is reported, so a form has to come before the forms that it contains.
MISTAKES = (
    _key_mistake(r"(?:#|//|;|--\s|/\*|<!--).*", "is a comment"),
    _key_mistake(
        rf"(?:bearer\s+|[\"'])?(?:{'|'.join(_REFERENCES)})[\"']?",
        "is still a reference that the host did not fill in",
        "Set the variable where the host is started, or use AGENT_JOBS_API_KEY_FILE.",
        is_unset=True,
    ),
    _key_mistake(
        r"(?:(?:proxy-)?authorization\s*[:=]\s*)?[\"']?(?:bearer(?:[\s:].*)?|basic\s.*)|(?:proxy-)?authorization\s*[:=].*",
        "begins with 'Bearer' or with the name of a header",
        "Leave that out.",
    ),
    _key_mistake(
        rf"\W{{0,4}}(?:(?:export|setx?|env|declare|const|let|var|e)\b[\s:]*)?{_NAME}[\"']?\s*:?=\s*[^=\s].*"
        r"|(?:export|setx?|declare)\s.*|--?(?:api-?)?key[=\s].*"
        rf"|[-\s\"']*(?:[a-z0-9]+[-_])*(?:api{_SPLIT}key[\"']?\s*:|token[\"']?\s*:\s).*",
        "is a whole NAME=value line",
        "Put only the value there.",
    ),
    _key_mistake(r"(?-i:[A-Z_]*(?:KEY|TOKEN)=)", "is a NAME=value line without a value"),
    _key_mistake(r"[\[{]\s*[\"'{\[].*|[\[{]|---\s*|-----BEGIN.*|<\?xml.*", "is the beginning of another file"),
    _key_mistake(r".*[“”„‟‘’‚‛«»‹›″′].*", "has typographic quotes around it", "Leave them out."),
    _key_mistake(r"[\"'`].*|.*[\"'`][,;]?", "has quotes around it", "Leave them out."),
    _key_mistake(r".*[,;]", "ends in a comma or a semicolon", "Leave that out."),
    _key_mistake(
        rf"{_PREFIX}(?:{'|'.join(_PLACEHOLDERS)})|<[^<>]*>|\[[^\[\]]*\]|\{{[^{{}}]*\}}|sk-|sk-proj-",
        "is a placeholder of an example",
        "Put your own key there.",
    ),
    _key_mistake(r".*(?:\.{3}|…|\*{3}|•{3}).*", "is a key that was shortened for display", "Copy the whole key."),
    _key_mistake(r"\w+://.*|file:.*", "is an address", "Put the key itself there."),
    _key_mistake(
        r"(?:~|\.{1,2}|[a-z]:)[/\\].*|/(?:home|users|root|etc|run|var|tmp|opt)/.*",
        "is a path",
        "Set AGENT_JOBS_API_KEY_FILE to it.",
    ),
    _key_mistake(
        "(?:.*[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff].*)",
        "holds an invisible character, such as a zero-width space",
        "Copy the key again from where it was made.",
    ),
    _key_mistake(
        ".*[\u2010-\u2015\u2212\ufe58\ufe63\uff0d].*",
        "holds a dash that is not the '-' of the keyboard",
        "Copy the key again from where it was made.",
    ),
    _key_mistake(r".*\s.*", "has a space or a line break in it", "Copy the key again, alone."),
)


def find_key_mistake(key: str) -> KeyMistake | None:
    """Return the mistake in the form of a key, or None. Its text never repeats the key."""
    return next((mistake for mistake in MISTAKES if mistake.pattern.fullmatch(key)), None)


#: Characters that people copy along with a key, and their description. The group is the key itself.
_EXTRAS = (
    (
        re.compile(
            r"(?:(?:export|setx?|env|declare|const|let|var)\s+)?(?:\$env:)?\w*(?:KEY|TOKEN)\w*\s*[:=]\s*(?P<key>\S.*)",
            re.I | re.S,
        ),
        "the name before it",
    ),
    (re.compile(r"(?:proxy-)?authorization\s*[:=]\s*(?P<key>\S.*)", re.I | re.S), "the name of the header"),
    (re.compile(r"bearer[\s:]+(?P<key>\S.*)", re.I | re.S), "'Bearer'"),
    (re.compile(r"[\"'`“”„‟‘’‚‛«»‹›″′](?P<key>.+)[\"'`“”„‟‘’‚‛«»‹›″′]", re.S), "the quotes around it"),
    (re.compile(r"(?P<key>\S.*?)\s*[,;]", re.S), "the comma or semicolon after it"),
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
#: References are refused unchanged, because the characters around the name are part of them.
_WHOLE = re.compile(r"\$(?!env:\w+\s*=)|[%{<]|`\S*\s|\S*\$\{", re.I)


def repair_key(text: str) -> tuple[str, list[str]]:
    """Return a key without the characters that were copied along with it, and a description of each of them."""
    left_out: list[str] = []
    key = text.strip()
    if _INVISIBLE.search(key):
        key = _INVISIBLE.sub("", key).strip()
        left_out.append("invisible characters")
    while (extra := _split_extra(key)) is not None:
        key, words = extra
        left_out.append(words)
    return key, left_out


def _split_extra(text: str) -> tuple[str, str] | None:
    """Return what remains of a text without one thing that is around the key, and the words for that thing."""
    if _WHOLE.match(text):
        return None
    for pattern, words in _EXTRAS:
        if found := pattern.fullmatch(text):
            return found["key"].strip(), words
    return None
