"""The guest: build its init from guest.c, boot a kernel with it under QEMU, collect the lines it prints.

It does not interpret the lines.
"""

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SILENCE_S = 240  # without a new line the guest is given up

Line = dict[str, Any]


def build_init(folder: Path) -> bytes:
    """Compile guest.c, statically: it is the only program of the guest."""
    exe = folder / "init"
    subprocess.run(["gcc", "-static", "-O2", "-Wall", "-o", str(exe), str(HERE / "guest.c")], check=True)
    return exe.read_bytes()


def cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A newc archive of {path: (mode, bytes)}."""
    out = bytearray()

    def add(inode: int, path: str, mode: int, data: bytes) -> None:
        name = path.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        out.extend(("070701" + "".join(f"{field:08x}" for field in fields)).encode() + name)
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(data)
        out.extend(b"\0" * (-len(out) % 4))

    for inode, (path, (mode, data)) in enumerate(files.items(), 1):
        add(inode, path, mode, data)
    add(0, "TRAILER!!!", 0, b"")
    return bytes(out)


def boot(
    qemu: str, init: bytes, kernel: Path, nodes: int, script: str, stem: Path, verbose: bool = False, node_mib: int = 384
) -> list[Line]:
    """Boot once and run the script of scenarios; returns the JSON lines. Files begin with the path `stem` and go again."""
    initrd, out, console = (stem.with_suffix(suffix) for suffix in (".gz", ".out", ".console"))
    contents = {
        "init": (0o100755, init),
        "proc": (0o40755, b""),
        "sys": (0o40755, b""),
        "dev": (0o40755, b""),
        "scenarios.txt": (0o100644, script.encode()),
    }
    initrd.write_bytes(gzip.compress(cpio(contents), 1))
    out.write_bytes(b"")
    command = [qemu, "-accel", "tcg,thread=single", "-cpu", "max", "-m", f"{node_mib * nodes}M"]
    command += ["-smp", f"{nodes},sockets={nodes},cores=1,threads=1"]
    for nid in range(nodes):
        command += ["-object", f"memory-backend-ram,size={node_mib}M,id=m{nid}"]
        command += ["-numa", f"node,memdev=m{nid},cpus={nid},nodeid={nid}"]
    append = (
        "console=ttyS0 quiet panic=-1 transparent_hugepage=never numa_balancing=disable "
        "mitigations=off nokaslr no5lvl oops=panic proc_mem.force_override=always"
    )
    command += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", append]
    command += ["-display", "none", "-monitor", "none", "-serial", f"file:{console}"]
    command += ["-debugcon", f"file:{out}", "-no-reboot", "-nodefaults"]
    _watch(subprocess.Popen(command, stdin=subprocess.DEVNULL), out)
    lines: list[Line] = []
    for line in out.read_bytes().decode(errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break  # cut off
    if verbose or not lines or "stop" not in lines[-1]:
        sys.stderr.write(console.read_text(errors="replace")[-3000:])
    for file in (initrd, out, console):
        file.unlink(missing_ok=True)
    return lines


def _watch(guest: subprocess.Popen[bytes], out: Path) -> None:
    """Wait until the guest powers off, or has been silent for too long."""
    last, size = time.monotonic(), -1
    try:
        while guest.poll() is None and time.monotonic() - last <= SILENCE_S:
            time.sleep(0.2)
            if out.stat().st_size != size:
                last, size = time.monotonic(), out.stat().st_size
    finally:
        if guest.poll() is None:
            guest.kill()
        guest.wait()
