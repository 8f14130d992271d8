"""The OpenAPI document tells every path that is served, and is current where it is kept."""

from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
from starlette.routing import Route

from outlive.api.app import GROUPS, application
from outlive.api.declaring import declared_in
from outlive.api.document import document
from outlive.api.publish import published
from outlive.api.view import View

ROOT = Path(__file__).parents[2]
TOLD = document(GROUPS)


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, told) for path, methods in TOLD["paths"].items() for method, told in methods.items()]


def test_the_document_that_is_kept_is_current() -> None:
    """If this fails, run `python -m outlive.api.publish` in the repository."""
    stale = [str(path) for path, text in published(ROOT).items() if not path.exists() or path.read_text() != text]
    assert stale == []


@pytest.mark.parametrize("peers_only", [False, True])
def test_every_path_that_is_served_is_told(peers_only: bool) -> None:
    """A path is declared beside its handler, with `route`; one that is put into the application by hand fails here."""
    app = application(cast(View, None), peers_only=peers_only)
    for each in app.routes:
        assert isinstance(each, Route), each
        told = {method.upper() for method in TOLD["paths"].get(each.path, {})}
        assert (each.methods or set()) - {"HEAD"} <= told, each.path
        assert peers_only or told <= (each.methods or set()), each.path


def test_other_agents_are_told_apart_from_people() -> None:
    paths = {route.path for route in application(cast(View, None), peers_only=True).routes if isinstance(route, Route)}
    declared = [declared for group in GROUPS for _, _, declared in declared_in(group)]
    assert paths == {each.path for each in declared if each.to_peers}
    assert not any(path.startswith(("/v1/workloads", "/v1/operations", "/v1/networks")) for path in paths)


def test_every_operation_is_told_in_a_sentence_and_has_a_name_of_its_own() -> None:
    for path, method, told in operations():
        assert told["summary"].endswith("."), (method, path)
        assert {"422", "503"} <= set(told["responses"]), (method, path)
    names = [told["operationId"] for _, _, told in operations()]
    assert len(set(names)) == len(names)


def test_every_parameter_is_told_in_a_sentence() -> None:
    for path, _, told in operations():
        for parameter in told["parameters"]:
            assert parameter["in"] == "path" or parameter["description"].endswith("."), (path, parameter["name"])


def test_the_schemas_are_valid_and_name_each_other_rightly() -> None:
    schemas = TOLD["components"]["schemas"]
    for name, schema in schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert name.isidentifier(), name

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*(references(each) for each in value.values()))
        return set().union(*(references(each) for each in value)) if isinstance(value, list) else set()

    assert references(TOLD) == {f"#/components/schemas/{name}" for name in schemas}
