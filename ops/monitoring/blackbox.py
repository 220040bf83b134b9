"""The configuration of the blackbox exporter: its probe of /predict sends the problem's example."""

import json
from pathlib import Path

import yaml

from app.interface import EXAMPLE
from stages.base import yaml_files

FILE = Path(__file__).resolve().parent / "config" / "prometheus" / "blackbox.yml"


def configuration(api_key: str = "") -> str:
    """Return the committed configuration with a request body and, for a service with API keys, the header."""
    content = yaml_files.load(FILE)
    http = content["modules"]["predict"]["http"]
    http["body"] = json.dumps(EXAMPLE)
    http["headers"] |= {"X-API-Key": api_key} if api_key else {}
    return str(yaml.safe_dump(content, sort_keys=False))
