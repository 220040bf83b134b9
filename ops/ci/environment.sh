# Sets and removes inherited variables that are read before any code of this repository runs; docs/environment.md has the reasons.
inherited=$(env | sed -nE 's/^(PYTHON[A-Z0-9]+|GIT_(DIR|WORK_TREE|INDEX_FILE|PREFIX|COMMON_DIR|NAMESPACE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES)|CDPATH|GOMP_SPINCOUNT|MLFLOW_CONFIGURE_LOGGING|PIP_(TARGET|PREFIX|CONSTRAINT)|UV_(EXCLUDE_NEWER|CONSTRAINT|OVERRIDE|SYSTEM_PYTHON))=.*/\1/p')
unset inherited $inherited
export PYTHONUTF8=1 OMP_WAIT_POLICY=passive PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 # also where pip's configuration has the opposite
