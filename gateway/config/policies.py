"""The list of policies: each exists, takes its settings, and stands where its `after` allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path as FilePath
from typing import Any

from gateway.config.check import near
from gateway.config.problems import Path, Problem, dotted
from gateway.config.settings import Settings, scope_names
from gateway.config.translate import Place, expected_of, nearest_choice, shown
from gateway.policy import Policy, PolicyError, build, check_order, known_settings, policy_class


def check_policies(settings: Settings, data: Any, place: Place) -> list[Problem]:
    """Every policy of the list exists, takes its settings, and stands where its `after` allows."""
    problems: list[Problem] = []
    built: list[Policy] = []
    used: set[str] = set()
    for index, entry in enumerate(settings.policies):
        path: Path = ("policies", index)
        try:
            name = policy_class(entry).name
        except PolicyError as error:
            problems.append(_unknown_policy(error, entry, path, place))
            continue
        except Exception as error:
            problems.append(place.problem(f"policy {entry!r} can't be imported: {error!r}", path))
            continue
        used.add(name)
        try:
            built.append(build(entry, dict(settings.policy.get(name, {}))))
        except PolicyError as error:
            problems += _bad_settings(error, name, entry, data, place)
        except Exception as error:
            problems.append(place.problem(f"policy {name!r} refuses its settings: {error}", ("policy", name)))
    if not problems:
        try:
            if "identity" not in used:
                raise PolicyError("the list lacks 'identity': without it nobody is told apart", "")
            check_order(built)
        except PolicyError as error:
            problems.append(_misplaced(error, [policy.name for policy in built], place))
    return [*problems, *_unused(settings, used, place)]


def policy_remarks(settings: Settings, live: Settings) -> Iterator[str]:
    """What the policies of the list say of their own settings, once all is right."""
    names = scope_names(live)
    for entry in settings.policies:
        policy = policy_class(entry)
        if policy.remarks is not Policy.remarks:
            for sentence in build(entry, dict(settings.policy.get(policy.name, {}))).remarks(names):
                yield f"policy.{policy.name}.{sentence}"


def _misplaced(error: Any, names: list[str], place: Place) -> Problem:
    path: Path = ("policies",)
    if error.policy in names:
        path = ("policies", len(names) - 1 - names[::-1].index(error.policy))  # of one that stands twice, the second
    return place.problem(str(error), path, hint="the list is the order in which a call is decided")


def _unknown_policy(error: PolicyError, entry: str, path: Path, place: Place) -> Problem:
    known = builtin_policies()
    if "." in entry or ":" in entry:
        return place.problem(str(error), path, hint=error.hint)
    hint = near(entry, known)
    if find_spec(entry) is not None:
        hint = f'there is a module of that name: for a policy in it write "{entry}:ClassName"'
    expected = f'one of {", ".join(known)}, or "package.module:Class" for one of your own'
    return place.problem(str(error), path, expected=expected, hint=hint)


def _bad_settings(error: PolicyError, name: str, entry: str, data: Any, place: Place) -> Iterator[Problem]:
    """All that is wrong with the settings of one policy."""
    known = known_settings(policy_class(entry))
    for key in error.unknown:
        yield place.problem(
            f"unknown key {key!r} in [policy.{name}]",
            ("policy", name, key),
            value=False,
            expected=f"one of {', '.join(known)}",
            hint=near(key, known),
        )
    for fault in error.faults:
        if fault["type"] == "value_error":
            yield _in_its_words(fault, name, data, place)
            continue
        path: Path = ("policy", name, *(part for part in fault["loc"] if part != "[key]"))
        yield place.problem(
            f"value of {dotted(path)} is not right",
            path,
            found=shown(path, data),
            expected=expected_of(fault["type"], fault.get("ctx", {}), fault["msg"]),
            hint=nearest_choice(fault["type"], fault.get("ctx", {}), path, data),
        )
    if not error.unknown and not error.faults:
        path = ("policy", name, *([error.key] if error.key else []))
        yield place.problem(str(error), path, found=shown(path, data) if error.key else "")


def _in_its_words(fault: Mapping[str, Any], name: str, data: Any, place: Place) -> Problem:
    """A rule of the policy itself, whose sentence says it all."""
    path: Path = ("policy", name, *(part for part in fault["loc"] if part != "[key]"))
    return place.problem(f"{dotted(path)}: {fault['msg'].removeprefix('Value error, ')}", path, found=shown(path, data))


def _unused(settings: Settings, used: set[str], place: Place) -> Iterator[Problem]:
    known = builtin_policies()
    for name in settings.policy:
        if name not in used and name not in known:
            yield place.problem(
                f"[policy.{name}] is for a policy that is not in the list",
                ("policy", name),
                value=False,
                expected=f"one of {', '.join(sorted(used | set(known)))}",
                hint=near(name, [*used, *known]),
            )


def builtin_policies() -> list[str]:
    """Names of the rules that come with the gateway, one a file."""
    package = find_spec("policies")  # by its name: the gateway imports no policy but those of the list
    folders = (package.submodule_search_locations if package is not None else None) or []
    files = (file for folder in folders for file in FilePath(folder).glob("*.py"))
    return sorted(file.stem for file in files if not file.stem.startswith("_"))
