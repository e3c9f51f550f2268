"""The linker command of a cross build: `link.py ARCH` and what a compiler driver would be given.

It makes the bundle that Apple's `cc -bundle -undefined dynamic_lookup` makes: names that libSystem
has are bound to it, all others are looked for when the extension is loaded.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from toolchain import MACOS, libsystem_text, linker


def main(arch: str, *arguments: str) -> int:
    """Link; -L and -Wl are the host's and do not count."""
    words = [word for word in arguments if not word.startswith(("-L", "-Wl,", "-O", "-g"))]
    with tempfile.TemporaryDirectory() as folder:
        stub = Path(folder, "libSystem.tbd")
        stub.write_text(libsystem_text(arch), encoding="utf-8")
        command = [linker(), "-bundle", "-arch", arch, "-platform_version", "macos", MACOS, MACOS]
        command += ["-undefined", "dynamic_lookup", *words, str(stub)]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
