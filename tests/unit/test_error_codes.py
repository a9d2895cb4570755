"""Each error has a code, and each code has one fix for each kind of reader."""

import ast
import re
import string
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import agent_jobs
from agent_jobs import errors
from agent_jobs.cli import wording as person
from agent_jobs.errors import AgentJobsError, Argument, ConfigError, RequestError, StoreError, UnclearError
from agent_jobs.mcp_server import wording as model
from agent_jobs.page import wording as page
from agent_jobs.rendering import answers
from agent_jobs.rendering.fixes import FIXES, USER_STEPS, Voice
from agent_jobs.rendering.owner_fixes import OWNER_FIXES
from agent_jobs.rendering.owner_steps import OWNER_NEXT_STEPS
from agent_jobs.validation import ENTRY_CODES

SOURCE = Path(agent_jobs.__file__).parent
#: The classes whose calls are the places where an error or a warning is created.
CLASSES = {name for name in vars(errors) if name.endswith("Error")} | {"RefusedFileError", "SettingWarning"}
#: Errors of the provider, whose answer has their code.
UPSTREAM = {"UpstreamError", "UnsentError", "BusyError", "UnclearError", "RefusedError", "AccountError", "MissingError"}
#: Packages and modules with one kind of reader, whose words are already in the problem.
FACES = (
    "cli/", "mcp_server/", "team_server/", "install/", "emulator/", "files/private_file.py",
    "settings/configuration.py", "settings/env_file.py", "settings/path_values.py", "settings/secret_values.py",
    "settings/settings_file.py", "settings/values.py",
)  # fmt: skip
#: Functions whose errors get their code from a caller, a table or the error that they wrap.
INDIRECT = {
    "choice_error", "value_error", "_explain_failure", "_word_failure",
    "_preset_error", "move_jobs", "_arguments_error",
}  # fmt: skip
#: The fixes of each code, by their readers.
TABLES: Mapping[str, Mapping[str, str]] = {
    "shared": FIXES, "the user's": USER_STEPS, "a model's": model.FIXES, "a person's": person.FIXES
}  # fmt: skip
#: Codes that only commands raise, never the server.
OF_COMMANDS = {code for code in person.FIXES if code not in {*FIXES, *USER_STEPS, *model.FIXES}}
#: The facts that at least one fix names.
FACTS = {
    name
    for table in TABLES.values()
    for fix in table.values()
    for _, name, _, _ in string.Formatter().parse(fix)
    if name is not None and name.isidentifier()
}


class Site(NamedTuple):
    """A place in the source where an error is created."""

    where: str
    function: str
    kind: str
    call: ast.Call

    @property
    def code(self) -> str | None:
        """Return the code, if it is a literal."""
        if len(self.call.args) < 2 or not isinstance(self.call.args[1], ast.Constant):
            return None
        return str(self.call.args[1].value)

    @property
    def facts(self) -> set[str]:
        return {each.arg for each in self.call.keywords if each.arg is not None}


@cache
def find_sites() -> list[Site]:
    """Return the places in the source. The result is cached, since it takes two seconds."""
    return list(_walk_modules())


def _walk_modules() -> Iterator[Site]:
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        if not any(f"{name}(" in text for name in CLASSES):
            continue  # a third of the modules, which need not be parsed
        for function in ast.walk(ast.parse(text)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _walk_function(str(path.relative_to(SOURCE)), function)


def _walk_function(module: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Site]:
    inner = {id(each) for part in ast.walk(function) if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
             and part is not function for each in ast.walk(part)}  # fmt: skip
    for node in ast.walk(function):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id in CLASSES and id(node) not in inner:
            yield Site(f"{module}:{node.lineno}", function.name, node.func.id, node)


def fields_of(template: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(template) if field}


def templates_of(code: str) -> list[str]:
    return [table[code] for table in TABLES.values() if code in table]


def test_each_error_of_a_package_below_the_faces_has_a_known_code() -> None:
    ours = [site for site in find_sites() if not site.where.startswith(FACES)]
    coded = [site for site in ours if site.kind not in UPSTREAM and site.function not in INDIRECT]
    assert len(coded) > 70, "no place was found"
    assert [site.where for site in coded if site.code is None or not templates_of(site.code)] == []


def test_each_warning_about_a_setting_has_a_step_for_the_user_and_a_request_for_the_model() -> None:
    warnings = [site for site in find_sites() if site.kind == "SettingWarning"]
    assert len(warnings) >= 9
    assert [site.where for site in warnings if site.code not in USER_STEPS] == []


def test_each_error_has_the_facts_that_its_sentences_name() -> None:
    for site in find_sites():
        if site.code is None or site.kind in UPSTREAM or site.function in INDIRECT:
            continue
        problem = site.call.args[0]
        named = fields_of(str(problem.value)) if isinstance(problem, ast.Constant) and site.facts else set[str]()
        for template in templates_of(site.code):
            named |= fields_of(template)
        assert named <= site.facts, site.where


def test_each_code_has_its_fix_in_one_place_for_all_readers_or_in_one_for_each() -> None:
    for code in {code for table in TABLES.values() for code in table}:
        places = {name for name, table in TABLES.items() if code in table}
        own_to_model = places == {"a model's"} and code in find_codes("mcp_server")
        assert places in ({"shared"}, {"the user's"}, {"a model's", "a person's"}) or own_to_model, code


def find_codes(package: str) -> set[str | None]:
    written = "".join(path.read_text() for path in (SOURCE / package).rglob("*.py") if path.name != "wording.py")
    return {code for code in model.FIXES if f'"{code}"' in written}


def test_each_code_of_a_table_is_that_of_an_error() -> None:
    tables = ("fixes.py", "owner_fixes.py", "wording.py")
    written = "".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name not in tables)
    codes = {code for table in TABLES.values() for code in table} - {"account_refused", "upstream_busy"}
    assert [code for code in codes if f'"{code}"' not in written] == []
    assert {*ENTRY_CODES} <= {*FIXES, *model.FIXES}
    assert {*ENTRY_CODES.values()} <= {*USER_STEPS}


@pytest.mark.parametrize(("name", "table"), TABLES.items(), ids=TABLES)
def test_each_fix_is_in_the_words_of_its_reader(name: str, table: Mapping[str, str]) -> None:
    for code, fix in table.items():
        if name == "the user's":
            assert fix[0].islower(), code
            assert fix[-1] not in ".?!", code
        else:
            assert fix[0].isupper() or fix[0] == "{" or fix.startswith("agent_poll"), code
            assert fix[-1] in ".?" or "with: " in fix or fix.endswith("run"), code
        if name != "a model's":
            assert "agent_" not in fix, code
            assert "options." not in fix, code
            assert "sk the user" not in fix, code
        if name != "a person's":
            assert "--" not in re.sub("`[^`]*`", "", fix), code  # a command for the user to run


OF_THE_OPERATOR = re.compile(r"AGENT_JOBS_|OPENAI_|SSL_CERT|_PROXY|`agent-jobs|in a terminal|this server's entry")


@pytest.mark.parametrize("voice", [model.OWNER_MODEL, page.OWNER_VOICE], ids=["model", "page"])
def test_owner_of_a_team_is_sent_to_the_operator_for_what_only_the_operator_can_do(voice: Voice) -> None:
    for code in {code for table in (*TABLES.values(), page.FIXES) for code in table if code not in OF_COMMANDS}:
        fix = voice.fix(RequestError("{x}", code, x="x", **dict.fromkeys(FACTS, "x")))
        if OF_THE_OPERATOR.search(fix) or (code in USER_STEPS and code not in OWNER_FIXES):
            assert "ask the operator of this server" in fix.replace("Ask", "ask"), code
        assert not re.search("(ask|Ask) (the user|them) to (set|raise|run|start|put|list|correct)", fix), code
    wrong = ConfigError("AGENT_JOBS_MODE accepts auto.")
    assert voice.describe(wrong) == f"Ask the operator of this server to change a setting. {wrong}"


@pytest.mark.parametrize("steps", [OWNER_NEXT_STEPS, page.OWNER_NEXT_STEPS], ids=["model", "page"])
def test_next_steps_of_an_owner_name_the_operator_for_each_setting(steps: Mapping[str, str]) -> None:
    assert {code for code, step in answers.NEXT_STEPS.items() if OF_THE_OPERATOR.search(step)} <= steps.keys()
    for code, step in steps.items():
        assert not OF_THE_OPERATOR.search(step) or "operator of this server" in step, code


def test_failure_of_a_job_has_a_next_step_for_each_reader() -> None:
    assert answers.NEXT_STEPS.keys() == person.NEXT_STEPS.keys()
    for code, step in person.NEXT_STEPS.items():
        assert not re.search(r"agent_\w|options\.|the user", step), code
        assert "--" not in answers.NEXT_STEPS[code], code


def test_error_has_one_problem_and_a_fix_for_each_reader() -> None:
    error = RequestError("{name} is {given!r}.", "wrong_value", name=Argument("options.top_p"), given="x")
    assert (error.code, error.data) == ("wrong_value", {"name": "options.top_p", "given": "x"})
    assert str(error) == "options.top_p is 'x'."
    assert model.MODEL.describe(error) == "options.top_p is 'x'. Correct it and call again."
    assert person.describe_error(error) == "--option top_p is 'x'. Correct it and try again."


def test_step_of_the_user_is_a_request_to_the_model_and_a_step_to_the_person() -> None:
    error = RequestError("No file can be attached.", "no_file_roots")
    step = "set AGENT_JOBS_FILE_ROOTS to the folders that may be read."
    assert model.MODEL.describe(error) == f"No file can be attached. Ask the user to {step}"
    assert person.describe_error(error) == f"No file can be attached. S{step[1:]}"


def test_error_around_another_has_the_fix_of_that() -> None:
    locked = StoreError("The database is locked.", "database_locked")
    error = StoreError("New jobs wait: {error}.", error=locked)
    assert person.describe_error(error) == "New jobs wait: The database is locked. Close that program, then try again."


def test_mistake_in_a_setting_is_passed_on_to_the_user() -> None:
    error = ConfigError("AGENT_JOBS_X accepts 0 or 1. Correct it or remove it.")
    assert person.describe_error(error) == str(error)
    assert model.MODEL.describe(error) == f"Ask the user to change a setting. {error}"


def test_words_of_upstream_stay_as_they_are_and_get_the_fix_of_the_most_exact_code() -> None:
    refused = UnclearError("{odd} words", code="unreachable", fix="proxy_unreachable", data={"setting": "HTTPS_PROXY"})
    assert str(refused) == "{odd} words"
    assert person.describe_error(refused) == "{odd} words. Correct HTTPS_PROXY, or name the host in NO_PROXY."
    assert model.MODEL.describe(UnclearError("It broke", code="zzz")) == "It broke. Call again in 60 s."


@pytest.mark.parametrize(
    ("argument", "flag"),
    [
        ("effort", "--effort"),
        ("files", "--file"),
        ("previous_job_id", "--previous"),
        ("options", "--option"),
        ("options.allow_duplicate", "--option allow_duplicate"),
        ("options.tools mcp.server_url", "--option tools mcp.server_url"),
        ("prompts", "prompts"),
    ],
)
def test_argument_is_a_flag_to_a_person(argument: str, flag: str) -> None:
    error = RequestError("{name} is odd.", name=Argument(argument))
    assert person.describe_error(error) == f"{flag} is odd."
    assert str(AgentJobsError("{name} is odd.", name=Argument(argument))) == f"{argument} is odd."
