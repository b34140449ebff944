"""A store that other processes open and close too: what is written afterwards is there for everybody."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from orchestrator.store.schema import connect

_OPEN_AND_CLOSE = (
    "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM attempt'); db.close()"
)
_COUNT = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM outbox').fetchone())"


def another(code: str, path: Path) -> str:
    return subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True).stdout


def test_a_second_connection_of_a_process_does_not_let_others_take_its_log_away(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(connect(path)) as writer, closing(connect(path)):
        another(_OPEN_AND_CLOSE, path)
        writer.execute("INSERT INTO outbox (driver, kind, subject, sequence) VALUES ('d', 'state', 's', 0)")
        assert another(_COUNT, path).strip() == "1"


def test_a_store_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(connect(path)) as connection:
        assert isinstance(connection, sqlite3.Connection)
        assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}
