"""The schema of the migrated database as one readable file, from PostgreSQL's catalog, with the comments of the migrations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from include.database.migrate import MIGRATIONS
from include.database.unit_of_work import Connection
from include.settings import ROOT

FILE = ROOT / "docs" / "schema.sql"
RENEW = "./airlock test tests/state/test_schema.py --write-schema"
HEAD = f"""-- The schema of Airlock's database, whole: what the migrations in include/database/migrations add up to. Read it here, change it there.
-- Money is bigint micro-USD (names end in _micro). A column "state" moves only along the rows of the table transitions (trigger guard).
-- Written by `{RENEW}`; a test holds it against the migrated database."""

_TABLES = "SELECT oid, relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY oid"
_COLUMNS = """
SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS is_needed, pg_get_expr(d.adbin, d.adrelid) AS preset
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
_CONSTRAINTS = """
SELECT pg_get_constraintdef(oid, true) AS text FROM pg_constraint WHERE conrelid = %s AND contype IN ('p', 'u', 'c', 'f', 'x')
ORDER BY array_position(ARRAY['p', 'u', 'f', 'c', 'x'], contype::text), conname"""
_INDEXES = """
SELECT pg_get_indexdef(i.indexrelid) AS text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = %s AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid)
ORDER BY c.relname"""
_TRIGGERS = "SELECT pg_get_triggerdef(oid) AS text FROM pg_trigger WHERE tgrelid = %s AND NOT tgisinternal ORDER BY tgname"
_FUNCTIONS = """
SELECT oid, proname AS name, pg_get_functiondef(oid) AS text FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND prokind = 'f' ORDER BY proname, oid"""
_VIEWS = "SELECT viewname AS name, definition AS text FROM pg_views WHERE schemaname = 'public' ORDER BY viewname"
_RIGHTS = """
WITH rights AS (
  SELECT x.grantee, x.privilege_type AS what, '' AS columns, c.relname::text AS thing, 1 AS kind, c.relowner AS owner
  FROM pg_class c CROSS JOIN aclexplode(c.relacl) x WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
  UNION ALL SELECT x.grantee, x.privilege_type, ' (' || string_agg(a.attname, ', ' ORDER BY a.attnum) || ')', c.relname::text, 1, c.relowner
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid CROSS JOIN aclexplode(a.attacl) x
  WHERE c.relnamespace = 'public'::regnamespace GROUP BY x.grantee, x.privilege_type, c.relname, c.relowner
  UNION ALL SELECT x.grantee, x.privilege_type, '', 'FUNCTION ' || p.proname, 2, p.proowner
  FROM pg_proc p CROSS JOIN aclexplode(p.proacl) x WHERE p.pronamespace = 'public'::regnamespace)
SELECT r.rolname AS role, 'GRANT ' || string_agg(what || columns, ', ' ORDER BY what, columns) || ' ON ' || thing || ' TO ' || r.rolname AS text
FROM rights JOIN pg_roles r ON r.oid = rights.grantee WHERE rights.grantee <> rights.owner
GROUP BY r.rolname, kind, thing ORDER BY r.rolname, kind, thing"""
_SHORT = {"timestamp with time zone": "timestamptz", "integer": "int"}
_PROSE = 4
"""A heading of no more words names a section, and says nothing of what follows it."""


class Remarks(NamedTuple):
    """What the migrations say of tables, columns and functions; the newest word counts."""

    tables: dict[str, str]
    columns: dict[tuple[str, str], str]
    functions: dict[str, str]


def render(connection: Connection) -> str:
    """Write the schema of the database that this connection is in."""
    said = remarks("\n".join(path.read_text() for path in sorted(MIGRATIONS.glob("[0-9]*.sql"))))
    parts = [HEAD, *_tables(connection, said)]
    parts += [f"CREATE VIEW {row['name']} AS\n{row['text'].strip()}" for row in connection.execute(_VIEWS)]
    for row in connection.execute(_FUNCTIONS):
        parts.append(_above(said.functions.get(row["name"], "")) + row["text"].replace("CREATE OR REPLACE", "CREATE").strip() + ";")
    rights: dict[str, list[str]] = {}
    for row in connection.execute(_RIGHTS):
        rights.setdefault(row["role"], []).append(f"{row['text']};")
    return "\n\n".join([*parts, *("\n".join(lines) for lines in rights.values())]) + "\n"


def _tables(connection: Connection, said: Remarks) -> Iterator[str]:
    for table in connection.execute(_TABLES).fetchall():
        lines: list[tuple[str, str]] = []
        for column in connection.execute(_COLUMNS, [table["oid"]]):
            needed = " NOT NULL" if column["is_needed"] else ""
            preset = f" DEFAULT {column['preset']}" if column["preset"] else ""
            remark = said.columns.get((table["name"], column["name"]), "")
            lines.append(
                (f"  {column['name']} {_SHORT.get(column['type'], column['type'])}{needed}{preset.removesuffix('::text')}", remark)
            )
        lines += [(f"  {row['text']}", "") for row in connection.execute(_CONSTRAINTS, [table["oid"]])]
        ended = [(text + ("," if number < len(lines) else ""), remark) for number, (text, remark) in enumerate(lines, 1)]
        text = "\n".join(f"{text:<60} -- {remark}" if remark else text for text, remark in ended)
        after = [row["text"] for statement in (_INDEXES, _TRIGGERS) for row in connection.execute(statement, [table["oid"]])]
        head = _above(said.tables.get(table["name"], ""))
        yield "\n".join([f"{head}CREATE TABLE {table['name']} (\n{text}\n);", *(f"{line.replace('public.', '')};" for line in after)])


def _above(remark: str) -> str:
    return f"-- {remark}\n" if remark else ""


def remarks(sql: str) -> Remarks:
    """Collect the comments of migrations: behind a column, and above a table or a function."""
    found = Remarks({}, {}, {})
    above: list[str] = []
    table = ""
    for line in sql.splitlines():
        if line.startswith("--"):
            text = line.lstrip("- ").rstrip("- ")
            if line.endswith("---"):  # a heading; more may be said below it
                text = f"{text.rstrip('.')}."
            above = [*above, text] if len(text.split()) > _PROSE else []
            continue
        if made := re.match(r"(CREATE|ALTER) TABLE (\w+)", line):
            table = made[2]
            if made[1] == "CREATE" and above:
                found.tables[table] = "\n-- ".join(above)
        elif (made := re.match(r"CREATE (?:OR REPLACE )?FUNCTION (\w+)", line)) and above:
            found.functions[made[1]] = "\n-- ".join(above)
        elif table and (made := re.match(r"\s+(?:ADD COLUMN )?(\w+) .*?--\s*(.+)$", line)):
            found.columns[table, made[1]] = made[2]
        above = []
        table = "" if line.rstrip().partition(" --")[0].rstrip().endswith(";") else table
    return found
