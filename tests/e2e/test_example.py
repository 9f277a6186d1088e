"""``trio-lua serve examples/hello/nginx.conf`` as a user types it, but for the port."""

from __future__ import annotations

from pathlib import Path

from doc_pages import ROOT, Session


def test_hello(tmp_path: Path) -> None:
    session = Session(tmp_path)
    (session.folder / "examples").symlink_to(ROOT / "examples")
    conf = (ROOT / "examples" / "hello" / "nginx.conf").read_text()
    (session.folder / "nginx.conf").write_text(conf.replace("127.0.0.1:8080", "127.0.0.1:0"))
    try:
        session.run_command("trio-lua serve nginx.conf", "trio-lua 0.1.0 serves nginx.conf on ...")
        session.run_command("curl 127.0.0.1:8080/?name=Ann", "Hello, Ann!")
        session.run_command("""curl 127.0.0.1:8080/sum -d '{"numbers": [1, 2]}'""", '{"sum":3}')
    finally:
        session.close()
    assert sorted(path.name for path in session.folder.iterdir()) == ["examples", "nginx.conf"]
