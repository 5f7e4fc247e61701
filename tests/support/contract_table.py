"""The table of operations and fields of the REST contract: checking answers against it, and what was seen of it."""

import re
from collections import defaultdict

import attrs

FORMATS = {
    "dollars": re.compile(r"-?\d+\.\d{2,6}"),
    "count_fp": re.compile(r"-?\d+\.\d\d"),
    "date-time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,5}[1-9])?Z"),
}
TYPES = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "number": (int, float),
    "array": list,
    "object": dict,
}
STILL_SENT = {("Market", "liquidity_dollars")}
"""Not in the contract any more, but published clients still require it (exchange-api sheet, section 10)."""


def check(contract, name, content, path="$", seen=None):
    """`content` against a schema of the table: required fields, types, enums, formats.

    With `seen` (a `Coverage`), fields are counted and unknown ones noted; without, unknown fields pass.
    """
    schema = contract["schemas"].get(name)
    assert schema is not None, f"no schema {name}"
    if "enum" in schema:
        assert content in schema["enum"], f"{path}: {content!r}"
        return
    assert isinstance(content, dict), f"{path}: {content!r} is no {name}"
    fields = schema.get("fields", {})
    if seen is not None:
        seen.fields[name].update(field for field, value in content.items() if value is not None)
        seen.unknown.update((name, field) for field in content.keys() - fields.keys())
    for field, rule in fields.items():
        if field not in content:
            assert not rule.get("required"), f"{path}.{field} is missing"
        elif content[field] is None:
            assert rule.get("nullable"), f"{path}.{field} is null"
        else:
            check_value(contract, rule, content[field], f"{path}.{field}", seen)


def check_value(contract, rule, value, path, seen=None):
    """One value against one rule of the table."""
    if "$ref" in rule:
        check(contract, rule["$ref"], value, path, seen)
        return
    kind = rule.get("type")
    if kind in TYPES:
        assert isinstance(value, TYPES[kind]), f"{path}: {value!r} is no {kind}"
        assert not (kind in ("integer", "number") and isinstance(value, bool)), path
    if rule.get("enum"):
        assert value in rule["enum"], f"{path}: {value!r}"
    if rule.get("format") in FORMATS and value:
        assert FORMATS[rule["format"]].fullmatch(value), f"{path}: {value!r} is no {rule['format']}"
    items = rule.get("items") or (kind == "array" and rule.get("items.$ref") and {"$ref": rule["items.$ref"]})
    if kind == "array" and items:
        for i, item in enumerate(value):
            check_value(contract, items, item, f"{path}[{i}]", seen)


@attrs.define
class Coverage:
    """What of the contract was seen: statuses by operation, fields by schema, fields that it does not know."""

    contract: dict
    operations: list
    """Those that are meant to be served."""
    statuses: defaultdict = attrs.field(factory=lambda: defaultdict(set))
    fields: defaultdict = attrs.field(factory=lambda: defaultdict(set))
    unknown: set = attrs.field(factory=set)

    def answer(self, method, path, status, body, content):
        """One answer: its status, and for a success its shape. `body` are the bytes, `content` their meaning."""
        operation = next(o for o in self.operations if (o["method"], o["path"]) == (method, path))
        self.statuses[method, path].add(status)
        schema = operation["responses"].get(str(status))
        if not 200 <= status < 300:
            return
        assert schema is not None, f"{method} {path}: {status} is not declared"
        if schema == "None":
            assert body in (b"", b"{}"), f"{method} {path}: no body is declared"
        elif schema == "object":
            assert content == {}, f"{method} {path}: {content!r}"
        else:
            check(self.contract, schema, content, f"{method} {path}", self)

    def missing_statuses(self):
        """Declared successes that never came."""
        return [
            (o["method"], o["path"], status)
            for o in self.operations
            for status in o["responses"]
            if status.startswith("2") and int(status) not in self.statuses[o["method"], o["path"]]
        ]

    def reachable(self):
        """The schemas that a success may carry, in the order in which they are met."""
        found = {}

        def visit(name):
            schema = self.contract["schemas"].get(name)
            if schema is None or name in found or "enum" in schema:
                return
            found[name] = schema
            for rule in schema.get("fields", {}).values():
                inner = rule
                while inner:
                    for reference in (inner.get("$ref"), inner.get("items.$ref")):
                        if reference:
                            visit(reference)
                    inner = inner.get("items")

        for operation in self.operations:
            for status, schema in operation["responses"].items():
                if status.startswith("2"):
                    visit(schema)
        return found

    def missing_fields(self):
        """(schema, field) that no answer carried with a value."""
        return [
            (name, field)
            for name, schema in self.reachable().items()
            for field in schema.get("fields", {})
            if field not in self.fields[name]
        ]

    def report(self):
        """The whole as lines of text."""
        lines = ["operation                                                          seen / declared"]
        for o in self.operations:
            seen = self.statuses[o["method"], o["path"]]
            declared = sorted(int(status) for status in o["responses"])
            reached = [str(status) + ("" if status in seen else "-") for status in declared]
            extra = [f"+{status}" for status in sorted(seen - set(declared))]
            lines.append(f"{o['method']:6} {o['path']:68} {' '.join(reached + extra)}")
        total = sum(len(schema.get("fields", {})) for schema in self.reachable().values())
        missing = self.missing_fields()
        lines.append("")
        for name, schema in self.reachable().items():
            gone = [field for owner, field in missing if owner == name]
            count = len(schema.get("fields", {}))
            lines.append(
                f"{name:52} {count - len(gone)}/{count}" + (f"  not: {', '.join(gone)}" if gone else "")
            )
        lines += [
            "",
            f"operations {len(self.operations)}, missing successes {len(self.missing_statuses())}",
            f"schemas {len(self.reachable())}, fields {total - len(missing)} of {total}",
            f"unknown fields {sorted(self.unknown)}",
        ]
        return "\n".join(lines)
