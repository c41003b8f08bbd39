"""Loading the packaged checkpoints runs, imports and contacts nothing: seen by the interpreter's own audit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import sclcm.reference

SCRIPT = Path(__file__).with_name("audit.py")
FAMILIES = sorted(file.parent.name for file in Path(sclcm.reference.__file__).parent.glob("*/arrays.py"))


def run(*arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_loading_every_fixture_causes_no_event_that_needs_explaining():
    result = run(SCRIPT)
    lines = result.stdout.splitlines()
    assert result.returncode == 0, result.stderr
    assert [line for line in lines if not line.startswith(("loaded ", "refused "))] == []
    assert sorted({line.split()[1] for line in lines if line.startswith("loaded ")}) == FAMILIES
    assert not [line for line in lines if line.startswith("refused ") and line.endswith(" checkpoint")]


def test_the_audit_notices_what_loading_must_not_do():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import audit; from pathlib import Path;"
        "check = lambda event, *args: audit.is_explained(event, args, Path(sys.argv[1]));"
        "seen = [check('open', sys.argv[1] + '/a', 'r', 0), check('open', '/etc/passwd', 'r', 0),"
        "check('open', sys.argv[1] + '/a', 'wb', 1), check('open', sys.argv[1] + '/../../../x', 'r', 0),"
        "check('os.system', b'echo'), check('subprocess.Popen', 'echo', ['echo'], None, None),"
        "check('socket.connect', None, ('127.0.0.1', 80)), check('import', 'evil', None, None, None, None),"
        "check('import', 'torch.serialization', None, None, None, None),"
        "check('exec', compile('1', 'pickled', 'exec')), check('compile', '1', 'pickled'), check('compile', '1', None),"
        "check('pickle.find_class', 'os', 'system'), check('ctypes.dlopen', 'libc.so.6')]; print(seen)"
    )
    result = run("-c", code, str(SCRIPT.parent))
    expected = [True, *[False] * 7, True, *[False] * 5]
    assert result.stdout.strip() == str(expected), result.stderr
