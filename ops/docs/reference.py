"""`on-time ci reference`: the pages of docs/reference, written from the code that they describe."""

# pylint: disable=import-outside-toplevel # each page imports what it describes

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.docs.schemas import cell, table, words

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from pydantic import BaseModel

FOLDER = Path("docs/reference")
NOTE = "<!-- Written by `on-time ci reference` from {}; a change here is lost. -->"
WIDTH = 110
"""Characters of a line of the commands' help."""
DOCUMENT = re.compile(r"docs/(\w+\.md)")
FEW, LONGEST = 8, 60
"""Most values of a label that are listed, and most characters of a value."""


def page(title: str, source: str, *parts: str) -> str:
    """Return a page of these parts."""
    return "\n\n".join([f"# {title}", NOTE.format(source), *parts]) + "\n"


def commands() -> str:
    """Return the page of the command line: the help of every command."""
    from ops.cli import cli

    root = click.Context(cli, info_name="on-time", terminal_width=WIDTH, **cli.context_settings)
    parts = [cell(cli.help) + " Exit codes are in [Workflows](../ci.md#exit-codes)."]
    for name in cli.list_commands(root):
        group = cli.get_command(root, name)
        assert group is not None
        context = click.Context(group, info_name=name, parent=root)
        if not isinstance(group, click.Group):
            parts.append(f"## on-time {name}\n\n```text\n{group.get_help(context)}\n```")
            continue
        parts.append(f"## on-time {name}\n\n{group.help}")
        for verb in group.list_commands(context):
            command = group.get_command(context, verb)
            assert command is not None
            text = command.get_help(click.Context(command, info_name=verb, parent=context))
            parts.append(f"### on-time {name} {verb}\n\n```text\n{text}\n```")
    return page("Commands", "the help of the commands in ops/cli", *parts)


def settings() -> str:
    """Return the page of the settings: each variable of the environment, by program."""
    from app.settings import Settings
    from ops.monitoring.alert_receiver import ReceiverSettings
    from ops.monitoring.drift.monitor import DriftSettings
    from ops.retraining.decide import RetrainSettings

    parts = [
        "Each setting is a variable of the environment; an empty one is not set. An invalid value, or a name that "
        "resembles a setting, stops the program with an error that names it. "
        "[Inherited environment](../environment.md) has the variables of others that change something."
    ]
    for model in (Settings, DriftSettings, ReceiverSettings, RetrainSettings):
        texts, schema = attributes(model), model.model_json_schema(by_alias=False)
        prefix = model.model_config.get("env_prefix") or ""
        rows = []
        for name, field in model.model_fields.items():
            default = json.loads(json.dumps(field.default, default=str))
            shown = f"`{json.dumps(default).strip(chr(34))}`" if default not in (None, "", []) else "none"
            kind = words(schema["properties"][name]).removesuffix(" or null")
            rows.append((f"`{field.validation_alias or prefix + name.upper()}`", shown, kind, texts[name]))
        parts.append(f"## {heading(model)}\n\n" + table(("variable", "default", "type", "meaning"), rows))
    return page("Settings", "the settings classes in app and ops", *parts)


def heading(model: type) -> str:
    """Return the subject of a settings class: the first sentence of its docstring up to the comma."""
    return (inspect.getdoc(model) or model.__name__).partition(",")[0]


def attributes(model: type) -> dict[str, str]:
    """Return the docstrings of the attributes of a class, those of its base classes included."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__[:-1]):
        if cls.__module__.split(".")[0] not in ("app", "stages", "ops"):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[ast.unparse(line.target)] = inspect.cleandoc(str(after.value.value))
    return found


def parameters() -> str:
    """Return the page of params.yaml: keys and types from the models, their meaning from the file's comments."""
    from stages.params import Params

    parts = [
        "The keys of `params.yaml`, with their types and bounds. An unknown key is an error. The values are in "
        "[params.yaml](../../params.yaml); the site shows them as well. `dvc params diff` shows what differs from a "
        "commit. "
        "What is optional is for [new data](../data.md#what-changes-in-paramsyaml)."
    ]
    tables: dict[str, list[tuple[str, str, str]]] = {}
    notes = {key: DOCUMENT.sub(r"[\1](../\1)", comment) for key, comment in comments().items()}
    for section, key, kind, default in keys(Params):
        tables.setdefault(section, []).append((f"`{key}`", kind, notes.get(key, default)))
    for section, rows in tables.items():
        note = notes.get(section, "")
        intro = f"{note[0].upper()}{note[1:]}.\n\n" if note else ""
        parts.append(f"## {section or 'Top level'}\n\n{intro}" + table(("parameter", "type", "meaning"), rows))
    return page("Parameters", "stages/sections.py, stages/problem and the comments of params.yaml", *parts)


def keys(model: type["BaseModel"], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Return section, dotted key and type of each parameter, and whether it is optional."""
    from stages.sections import Section

    schema = model.model_json_schema()
    for field, info in model.model_fields.items():
        name = info.alias or field
        key = f"{prefix}.{name}".lstrip(".")
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from keys(info.annotation, key)
        else:
            kind = words(schema["properties"][name]).removesuffix(" or null")
            yield prefix, key, kind, "" if info.is_required() else "optional"


def comments(path: Path = Path("params.yaml")) -> dict[str, str]:
    """Return the comment beside each key of a YAML file, by the dotted key."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    text = path.read_text(encoding="utf-8")
    lines, found = text.splitlines(), {}

    def walk(node: Any, prefix: str) -> None:
        for name in node if isinstance(node, CommentedMap) else ():
            key = f"{prefix}.{name}".lstrip(".")
            _, mark, comment = lines[node.lc.key(name)[0]].partition(" # ")
            if mark:
                found[key] = comment.strip()
            walk(node[name], key)

    walk(YAML().load(text), "")
    return found


def metrics() -> str:
    """Return the page of the metrics: name, type, labels and help, by program."""
    from app.metrics import Metrics
    from ops.monitoring.alert_receiver import Receiver, ReceiverSettings
    from ops.monitoring.drift.gauges import Gauges

    programs = {
        "Service": Metrics().registry,
        "Drift monitor": Gauges(0).registry,
        "Alert receiver": Receiver(ReceiverSettings()).registry,
    }
    parts = [
        "Each program has its metrics at `/metrics`, in Prometheus' format. A histogram `x` has the series `x_bucket`, "
        "`x_sum` and `x_count`. Alerts and dashboards are described in [Monitoring](../monitoring.md)."
    ]
    for program, registry in programs.items():
        parts.append(f"## {program}\n\n" + table(("metric", "type", "labels", "meaning"), series(registry)))
    return page("Metrics", "the registries of app/metrics.py and ops/monitoring", *parts)


def series(registry: "CollectorRegistry") -> Iterator[tuple[str, str, str, str]]:
    """Return name, type, labels and help of each metric of a registry."""
    for collector in registry._collector_to_names:  # pylint: disable=protected-access # it has no public list
        for metric in collector.collect():
            labels = []
            for label in getattr(collector, "_labelnames", ()):
                values = sorted({sample.labels[label] for sample in metric.samples if label in sample.labels})
                labels.append(f"`{label}`" + (f" ({', '.join(values)})" if 0 < len(values) <= FEW else ""))
            name = metric.name + "_total" * (metric.type == "counter")
            yield f"`{name}`", metric.type, ", ".join(labels), metric.documentation


def api() -> str:
    """Return the page of the API: its operations and schemas, from openapi.json."""
    from ops.docs.operations import operations, schemas

    contract = json.loads(Path("openapi.json").read_text(encoding="utf-8"))
    parts = [
        f"{contract['info']['description']}\n\nHow requests are handled, and what each status means, is in "
        "[Serving](../serving.md#endpoints).",
        *operations(contract),
        "## Schemas",
        *schemas(contract),
    ]
    return page("API", "openapi.json", *parts)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": commands,
    "parameters.md": parameters,
    "settings.md": settings,
    "metrics.md": metrics,
    "api.md": api,
}


def write(folder: Path = FOLDER) -> list[Path]:
    """Write all pages, and return those that have changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = stale(folder)
    for path in changed:
        path.write_text(PAGES[path.name](), encoding="utf-8")
    return changed


def stale(folder: Path = FOLDER) -> list[Path]:
    """Return the pages that differ from what is written now."""
    paths = [(folder / name, text()) for name, text in PAGES.items()]
    return [path for path, text in paths if not path.exists() or path.read_text(encoding="utf-8") != text]


def with_values(text: str) -> str:
    """Return the page of the parameters with another column: the values in params.yaml."""
    from stages.sections import as_dict

    values, lines = as_dict(), []
    for line in text.splitlines():
        first, *rest = line.split(" | ")
        if line.startswith("| parameter | "):
            first += " | value"
        elif line.startswith("| --- | "):
            first += " | ---"
        elif line.startswith("| `"):
            value: Any = values
            for part in first.strip("| `").split("."):
                value = value.get(part) if isinstance(value, dict) else None
            first += f" | {_compact(value)}"
        lines.append(" | ".join([first, *rest]))
    return "\n".join(lines)


def _compact(value: Any) -> str:
    if value is None:
        return ""
    text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return f"`{cell(text if len(text) <= LONGEST else text[:LONGEST] + '…')}`"
