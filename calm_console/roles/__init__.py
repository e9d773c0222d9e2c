"""The roles of the three servers and their exact grants, as SQL for psql. The demo's and the tests' own roles are made from these very files."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

HERE = Path(__file__).parent
CRM, CDP, CDP_DELETE, CONSOLE = "crm", "cdp", "cdp_delete", "console"


def grant(connection: psycopg.Connection, name: str, **names: str) -> None:
    """Run the file `name` as psql would with `-v role=...` and so on; roles that exist already are left as they are, and get the grants."""
    there = {role for (role,) in connection.execute("SELECT rolname FROM pg_roles")}
    for statement, created in statements(name, DBNAME=connection.info.dbname, **names):
        if created not in there:
            connection.execute(statement)


def statements(name: str, **names: str) -> Iterator[tuple[sql.Composed, str | None]]:
    """Each statement of the file, and of one that makes a role the role's name. What `names` leaves out has the file's own default."""
    text = (HERE / f"{name}.sql").read_text()
    names = dict(re.findall(r"^\\if .* \\set (\w+) (\w+) \\endif$", text, re.MULTILINE)) | names
    plain = "\n".join(line for line in text.splitlines() if not line.startswith(("--", "\\")))
    for statement in filter(None, (part.strip() for part in re.split(r";\n", plain + "\n"))):
        pieces = re.split(r':"(\w+)"', statement)  # text and variable in turn
        parts = [sql.Identifier(names[piece]) if at % 2 else sql.SQL(piece) for at, piece in enumerate(pieces)]
        yield sql.Composed(parts), names[pieces[1]] if statement.startswith("CREATE ROLE") else None
