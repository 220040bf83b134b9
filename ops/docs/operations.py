"""The operations and schemas of an OpenAPI document as Markdown."""

import re
from collections.abc import Iterator
from typing import Any

from ops.docs.schemas import cell, table, words

LINK = "[{0}](#{1})"
"""A link to the section of a schema."""


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def each(contract: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return method and path of each operation, and the operation."""
    for path, methods in contract["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def operations(contract: dict[str, Any]) -> list[str]:
    """Return a table of all operations, and a section for each."""
    overview = [(f"[{name}](#{anchor(name)})", _purpose(operation)) for name, operation in each(contract)]
    return [table(("operation", "purpose"), overview), "## Operations", *(_section(*one) for one in each(contract))]


def _purpose(operation: dict[str, Any]) -> str:
    return cell(operation.get("description", operation["summary"])).partition(". ")[0].rstrip(".")


def _section(name: str, operation: dict[str, Any]) -> str:
    parts = [f"### {name}", operation.get("description", operation["summary"])]
    if parameters := operation.get("parameters"):
        rows = [(f"`{p['name']}`", p["in"], words(p["schema"], LINK), p.get("description", "")) for p in parameters]
        parts.append(table(("parameter", "in", "type", "meaning"), rows))
    bodies: list[tuple[str, Any]] = [
        ("request", operation.get("requestBody", {})),
        *sorted(operation["responses"].items()),
    ]
    contents: dict[tuple[str, str], list[str]] = {}
    for label, body in bodies:
        for media in _media(body):
            contents.setdefault(media, []).append(label)
    listed = [(", ".join(labels), *media) for media, labels in contents.items()]
    return "\n\n".join([*parts, table(("status", "media type", "content"), listed)])


def _media(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for media, content in body.get("content", {}).items():
        yield f"`{media}`", words(content.get("schema", {}), LINK)


def schemas(contract: dict[str, Any]) -> list[str]:
    """Return a section for each schema: its fields with types, bounds and meaning."""
    return [_schema(name, schema) for name, schema in contract["components"]["schemas"].items()]


def _schema(name: str, schema: dict[str, Any]) -> str:
    parts = [f"### {name}", *([schema["description"]] if "description" in schema else [])]
    required = schema.get("required", [])
    rows = [
        (f"`{field}`", words(of, LINK), "yes" if field in required else "no", of.get("description", ""))
        for field, of in schema.get("properties", {}).items()
    ]
    parts.append(table(("field", "type", "required", "meaning"), rows) if rows else words(schema, LINK))
    return "\n\n".join(parts)
