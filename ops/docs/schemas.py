"""JSON schemas in words: the types of settings, parameters and fields of the API."""

from collections.abc import Iterable, Mapping
from typing import Any

BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "of at least {} characters",
    "maxLength": "of at most {} characters",
    "pattern": "matching `{}`",
}
"""The words for each keyword of a schema that bounds a value."""
NAMES = {"string": "text", "boolean": "true or false", "array": "list", "object": "mapping", "null": "null"}


def cell(text: object) -> str:
    """Return a text as the content of a table's cell: one line, its pipes escaped."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    names = list(header)
    lines = [names, ["---"] * len(names), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def words(schema: Mapping[str, Any], link: str = "`{}`") -> str:
    """Return the type of a value in words; `link` has places for another schema's name, as it is and in lower case."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return link.format(name, name.lower())
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(words(option, link) for option in options))
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    bounds = [form.format(schema[name]) for name, form in BOUNDS.items() if name in schema]
    return ", ".join([" ".join([_kind(schema, link), *bounds[:1]]), *bounds[1:]])


def _kind(schema: Mapping[str, Any], link: str) -> str:
    kind = schema.get("type", "any value")
    if kind == "array":
        if items := schema.get("prefixItems"):
            return "[" + ", ".join(words(item, link) for item in items) + "]"
        least, most = schema.get("minItems"), schema.get("maxItems")
        size = f"{least} to {most}: " if least is not None and most is not None else ""
        return f"list of {size}{words(schema['items'], link)}" if schema.get("items") else "list"
    if kind == "object" and isinstance(of := schema.get("additionalProperties"), dict):
        return f"by {words(schema['propertyNames']) if 'propertyNames' in schema else 'name'}: {words(of, link)}"
    return str(schema.get("format") or NAMES.get(kind, kind))
