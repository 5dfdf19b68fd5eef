"""What files look like that are no memory, or none that can be read, so that they are not taken for raw memory.

Only what people are likely to try is here; formats that can be read are known to their importers.
"""

from typing import Final, NamedTuple

from ksmbatch.importers.base import Probe


class Signature(NamedTuple):
    """Files that have `magic` at byte `offset` are `what`; `advice`, if there is any, says how to go on."""

    magic: bytes
    what: str
    advice: str = ""
    offset: int = 0


_UNPACK: Final = "unpack it first"
_DUMP: Final = "make a core of the guest: `virsh dump --memory-only`, or dump-guest-memory in QEMU's monitor"
SIGNATURES: Final = (
    Signature(b"\x7fELF", "an ELF file", "of ELF files only cores are memory"),
    Signature(b"\x1f\x8b", "gzip", _UNPACK),
    Signature(b"\x28\xb5\x2f\xfd", "zstd", _UNPACK),
    Signature(b"\xfd7zXZ\x00", "xz", _UNPACK),
    Signature(b"BZh", "bzip2", _UNPACK),
    Signature(b"\x04\x22\x4d\x18", "lz4", _UNPACK),
    Signature(b"\x89LZO\x00", "lzop", _UNPACK),
    Signature(b"\xff\x06\x00\x00sNaPpY", "snappy", _UNPACK),
    Signature(b"PK\x03\x04", "a zip archive", _UNPACK),
    Signature(b"ustar", "a tar archive", _UNPACK, offset=257),
    Signature(b"PAR1", "a Parquet file", "a trace needs no import"),
    Signature(b"QFI\xfb", "a QEMU disk image (qcow2)", _DUMP),
    Signature(b"KDMV", "a VMware disk image (VMDK)"),
    Signature(b"conectix", "a VHD disk image"),
    Signature(b"vhdxfile", "a VHDX disk image"),
    Signature(b"QEVM", "a QEMU migration stream (savevm, migrate)", _DUMP),
    Signature(b"LibvirtQemudSave", "a libvirt save file", _DUMP),
    Signature(b"LibvirtQemudPart", "a libvirt save file that was not finished", _DUMP),
    Signature(b"\xd2\xbe\xd2\xbe", "VMware's state of a VM (vmss, vmsn)", "the memory is in the .vmem file beside it"),
    Signature(b"PAGEDU64", "a Windows crash dump"),
    Signature(b"PAGEDUMP", "a Windows crash dump"),
    Signature(b"HIBR", "a Windows hibernation file"),
    Signature(b"hibr", "a Windows hibernation file"),
    Signature(b"MDMP", "a Windows minidump"),
    Signature(b"\xcf\xfa\xed\xfe", "a Mach-O file"),
    Signature(b"SQLite format 3\x00", "an SQLite database"),
    Signature(b"%PDF-", "a PDF document"),
    Signature(b"\x89PNG\r\n", "a PNG picture"),
)


def other_format(probe: Probe) -> Signature | None:
    """What the file is, if it is one of these."""
    for signature in SIGNATURES:
        if probe.head.startswith(signature.magic, signature.offset):
            return signature
    return None
