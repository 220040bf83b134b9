"""`on-time ci reference`: the pages of docs/reference, written from the code that they describe."""

# pylint: disable=import-outside-toplevel # each page imports what it describes

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

FOLDER = Path("docs/reference")
NOTE = "<!-- Written by `on-time ci reference` from {}; a change here is lost. -->"
WIDTH = 110
"""Characters of a line of the commands' help."""
FEW = 8
"""Most values of a label that are listed."""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "pattern": "matching"}


def page(title: str, source: str, *parts: str) -> str:
    """Return a page of these parts."""
    return "\n\n".join([f"# {title}", NOTE.format(source), *parts]) + "\n"


def table(header: str, rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table with these words as header; cells are one line each, their pipes escaped."""
    lines = [header.split(), ["---"] * len(header.split())]
    lines += [[" ".join(str(value).split()).replace("|", "\\|") for value in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def words(schema: Mapping[str, Any]) -> str:
    """Return the type of a value in words, with its bounds; another schema is a link to its section."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    options = schema.get("anyOf", schema.get("oneOf"))
    if options:
        return " or ".join(dict.fromkeys(words(option) for option in options))
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("format", schema.get("type", "any value")))
    if "prefixItems" in schema:
        kind = "[" + ", ".join(words(item) for item in schema["prefixItems"]) + "]"
    elif kind == "array":
        kind = f"list of {words(schema.get('items', {}))}"
    elif isinstance(schema.get("additionalProperties"), dict):
        kind = f"by name: {words(schema['additionalProperties'])}"
    return " ".join([kind, *(f"{sign} `{schema[name]}`" for name, sign in BOUNDS.items() if name in schema)])


def commands() -> str:
    """Return the page of the command line: what every command may change, and its help."""
    from ops.cli import cli
    from ops.cli.base import CHANGES

    makefile = Path("Makefile").read_text(encoding="utf-8")
    verbs = {
        command: verb
        for verb, command in re.findall(r"^([a-z-]+):.* ## .*\n\t\$\(ON_TIME\) (\S+ \S+)", makefile, re.MULTILINE)
    }
    parts: list[str] = []
    changes: list[tuple[str, str, str]] = []

    def add(command: click.Command, context: click.Context, level: int) -> None:
        heading = f"{'#' * level} {context.command_path}"
        if isinstance(command, click.Group):
            parts.append(f"{heading}\n\n{command.help}")
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                if child is not None:
                    add(child, click.Context(child, info_name=name, parent=context), level + 1)
            return
        parts.append(f"{heading}\n\n```text\n{command.get_help(context)}\n```")
        epilog = (command.epilog or "").partition("\n")[0]
        name = context.command_path.removeprefix("on-time ")
        verb = f"`make {verbs[name]}`" if name in verbs else ""
        changes.append((f"`on-time {name}`", verb, epilog.removeprefix(CHANGES).removesuffix(".")))

    root = click.Context(cli, info_name="on-time", terminal_width=WIDTH, **cli.context_settings)
    add(cli, root, 1)
    intro = f"{cli.help} Exit codes are in [Workflows](../ci.md#exit-codes)."
    overview = (
        "## What each command may change\n\n"
        "Besides build/pipeline.lock, caches, temporary folders, and mlflow.db in a new or a moved checkout.\n\n"
        + table("command make changes", changes)
    )
    return page("Commands", "the help of the commands in ops/cli", intro, overview, *parts[1:])


def settings() -> str:
    """Return the page of the settings: each variable of the environment, by program."""
    from app.settings import Settings
    from ops.monitoring.alert_receiver import ReceiverSettings
    from ops.monitoring.drift.monitor import DriftSettings
    from ops.training.retraining import RetrainSettings

    parts = [
        "Each setting is a variable of the environment; an empty one is not set. An invalid value, or a name that "
        "resembles a setting, stops the program with an error that names it. "
        "[Inherited environment](../environment.md) has the variables of others that change something."
    ]
    for model in (Settings, DriftSettings, ReceiverSettings, RetrainSettings):
        meanings, schema = attributes(model), model.model_json_schema(by_alias=False)
        prefix = model.model_config.get("env_prefix") or ""
        rows = []
        for name, field in model.model_fields.items():
            default = "none" if field.default in (None, "", []) else f"`{field.default}`"
            kind = words(schema["properties"][name]).removesuffix(" or null")
            rows.append((f"`{field.validation_alias or prefix + name.upper()}`", default, kind, meanings[name]))
        heading = (inspect.getdoc(model) or model.__name__).partition(",")[0]
        parts.append(f"## {heading}\n\n" + table("variable default type meaning", rows))
    return page("Settings", "the settings classes in app and ops", *parts)


def attributes(model: type) -> dict[str, str]:
    """Return the docstrings of the attributes of a class and of its base classes in this project."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__[:-1]):
        if cls.__module__.split(".")[0] in ("app", "stages", "ops"):
            lines = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
            for line, after in zip(lines, lines[1:], strict=False):
                if isinstance(line, ast.AnnAssign) and isinstance(after, ast.Expr):
                    found[ast.unparse(line.target)] = inspect.cleandoc(ast.literal_eval(after.value))
    return found


def parameters() -> str:
    """Return the page of params.yaml: keys and types from the models, their meaning from the file's comments."""
    from stages.params import Params

    tables: dict[str, list[tuple[str, str, str]]] = {}
    meanings = comments(Path("params.yaml").read_text(encoding="utf-8"))
    for section, key, kind, default in keys(Params):
        tables.setdefault(section, []).append((f"`{key}`", kind, meanings.get(key, default)))
    parts = [
        "The keys of [params.yaml](../../params.yaml), with their types and bounds. An unknown key is an error. "
        "`dvc params diff` shows what differs from a commit. "
        "What is optional is for [new data](../data.md#what-changes-in-paramsyaml)."
    ]
    for section, rows in tables.items():
        note = meanings.get(section, "")
        parts += [f"## {section or 'Top level'}", note[:1].upper() + note[1:], table("parameter type meaning", rows)]
    return page("Parameters", "stages/problem_kit/params.py, stages/problem and params.yaml", *filter(None, parts))


def keys(model: type["BaseModel"], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Return section, dotted key and type of each parameter, and whether it is optional."""
    from stages.problem_kit.params import Section

    schema = model.model_json_schema()
    for field, info in model.model_fields.items():
        name = info.alias or field
        key = f"{prefix}.{name}".lstrip(".")
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from keys(info.annotation, key)
        else:
            kind = words(schema["properties"][name]).removesuffix(" or null")
            yield prefix, key, kind, "" if info.is_required() else "optional"


def comments(text: str) -> dict[str, str]:
    """Return the comment beside each key of a YAML file that is indented by two spaces, by the dotted key."""
    path: list[str] = []
    found = {}
    for indent, name, comment in re.findall(r"^((?:  )*)([\w.]+):(?:.*? # (.*))?", text, re.MULTILINE):
        path[len(indent) // 2 :] = [name]
        if comment:
            found[".".join(path)] = re.sub(r"docs/(\w+\.md)", r"[\1](../\1)", comment)
    return found


def metrics() -> str:
    """Return the page of the metrics: name, type, labels and help, by program."""
    from app.metrics import Metrics
    from ops.monitoring.alert_receiver import Receiver, ReceiverSettings
    from ops.monitoring.drift.gauges import Gauges

    parts = [
        "Each program has its metrics at `/metrics`, in Prometheus' format. A histogram `x` has the series `x_bucket`, "
        "`x_sum` and `x_count`. Alerts and dashboards are described in [Monitoring](../monitoring.md)."
    ]
    receiver = Receiver(ReceiverSettings()).registry
    programs = {"Service": Metrics().registry, "Drift monitor": Gauges(0).registry, "Alert receiver": receiver}
    for program, registry in programs.items():
        rows = []
        for collector in registry._collector_to_names:  # pylint: disable=protected-access # it has no public list
            for metric in collector.collect():
                labels = []
                for label in getattr(collector, "_labelnames", ()):
                    values = sorted({sample.labels[label] for sample in metric.samples if label in sample.labels})
                    listed = f" ({', '.join(values)})" if 0 < len(values) <= FEW else ""
                    labels.append(f"`{label}`{listed}")
                name = f"{metric.name}_total" if metric.type == "counter" else metric.name
                rows.append((f"`{name}`", metric.type, ", ".join(labels), metric.documentation))
        parts.append(f"## {program}\n\n" + table("metric type labels meaning", rows))
    return page("Metrics", "the registries of app/metrics.py and ops/monitoring", *parts)


def api() -> str:
    """Return the page of the API: its operations and schemas, from openapi.json."""
    contract = json.loads(Path("openapi.json").read_text(encoding="utf-8"))
    parts = [
        f"{contract['info']['description']}\n\nHow requests are handled, and what each status means, is in "
        "[Serving](../serving.md#endpoints).",
        "## Operations",
    ]
    for path, methods in contract["paths"].items():
        for method, operation in methods.items():
            parts += [f"### {method.upper()} {path}", operation.get("description", operation["summary"])]
            bodies = {"request": operation.get("requestBody", {}), **dict(sorted(operation["responses"].items()))}
            statuses: dict[tuple[str, str], list[str]] = {}
            for status, body in bodies.items():
                for media, content in body.get("content", {}).items():
                    statuses.setdefault((f"`{media}`", words(content.get("schema", {}))), []).append(status)
            answers = [(", ".join(names), *content) for content, names in statuses.items()]
            parts.append(table("status media content", answers))
            fields = [
                (f"`{p['name']}`", words(p["schema"]), p.get("description", ""))
                for p in operation.get("parameters", [])
            ]
            if fields:
                parts.append(table("parameter type meaning", fields))
    parts.append("## Schemas")
    for name, schema in contract["components"]["schemas"].items():
        required = schema.get("required", [])
        described = [
            (f"`{field}`", words(of), "yes" if field in required else "no", of.get("description", ""))
            for field, of in schema.get("properties", {}).items()
        ]
        parts += [
            f"### {name}",
            schema.get("description", ""),
            table("field type required meaning", described) if described else words(schema),
        ]
    return page("API", "openapi.json", *filter(None, parts))


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": commands,
    "parameters.md": parameters,
    "settings.md": settings,
    "metrics.md": metrics,
    "api.md": api,
}


def write_pages(folder: Path = FOLDER) -> list[Path]:
    """Write all pages, and return those that have changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in PAGES.items():
        path, content = folder / name, text()
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
            changed.append(path)
    return changed
