"""What the Linux headers define under Apple's names is what Apple's headers say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import declared
import headers
import pytest
import toolchain

pytestmark = pytest.mark.timeout(300)


def test_everything_is_as_apple_has_it() -> None:
    assert list(headers.problems()) == []
    values = headers.table()
    assert values["MACH_RCV_TIMED_OUT"] == 0x10004003
    assert values["mach_msg_header_t.msgh_id"] == 20
    assert values["mach_msg_port_descriptor_t.type bits"] == 255
    assert len(values) > 1500


@pytest.mark.parametrize("target", toolchain.MACS, ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "MACH_NOTIFY_DEAD_NAME",
        "mach_msg_header_t",
        "struct kevent64_s.ext",
        "mach_port_t sign",
        "mach_msg()",
    ],
)
def test_a_wrong_entry_is_found(target: toolchain.Target, name: str) -> None:
    values = headers.table()
    wrong = {**values, name: values[name] + 1}
    found = headers.differences(target, wrong) - headers.listed(target).keys()
    assert found == {name}


@pytest.fixture
def include(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A copy of our headers to plant faults in; it is what is compared."""
    folder = tmp_path / "include"
    shutil.copytree(toolchain.LINUX_HEADERS, folder)
    monkeypatch.setattr(declared, "INCLUDE", folder)
    forget()
    yield folder
    forget()


def forget() -> None:
    declared.forget()
    headers.table.cache_clear()


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("header", "old", "new", "names"),
    [
        (
            "mach/kern_return.h",
            "#define KERN_NO_SPACE 3",
            "#define KERN_NO_SPACE 99",
            {"KERN_NO_SPACE"},
        ),
        (
            "mach/vm_types.h",
            "typedef vm_offset_t pointer_t;",
            "typedef void *pointer_t;",
            {"pointer_t"},
        ),
        (
            "mach/message.h",
            "    mach_port_name_t msgh_voucher_port;\n    mach_msg_id_t msgh_id;\n",
            "    mach_msg_id_t msgh_id;\n    mach_port_name_t msgh_voucher_port;\n",
            {"mach_msg_header_t.msgh_id", "mach_msg_header_t.msgh_voucher_port"},
        ),
        (
            "mach/message.h",
            "mach_msg_type_name_t disposition : 8;\n    mach_msg_descriptor_type_t type : 8;",
            "mach_msg_descriptor_type_t type : 8;\n    mach_msg_type_name_t disposition : 8;",
            {"mach_msg_port_descriptor_t.disposition place"},
        ),
        (
            "mach/message.h",
            "#define MACH_MSGH_BITS(remote, local) ((remote) | ((local) << 8))",
            "#define MACH_MSGH_BITS(remote, local) ((local) | ((remote) << 8))",
            {"MACH_MSGH_BITS(1, 2)"},
        ),
        (
            "mach/mach_port.h",
            "mach_port_type(ipc_space_t task, mach_port_name_t name, mach_port_type_t *",
            "mach_port_type(ipc_space_t task, mach_port_name_t name, uint64_t *",
            {"mach_port_type()"},
        ),
    ],
)
def test_a_wrong_header_is_found(
    include: Path, header: str, old: str, new: str, names: set[str]
) -> None:
    replace(include / header, old, new)
    for target in toolchain.MACS:
        assert names <= headers.differences(target, headers.table()) - headers.listed(target).keys()


def test_a_wrong_signature_in_the_cdef_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An int for a long would be converted without a word, and cffi's C would compile."""
    path = tmp_path / "mach.cdef.h"
    path.write_text(declared.CDEF.read_text())
    wrong = "mach_port_mscount_t mscount);", "uint64_t mscount);"
    replace(path, *wrong)
    monkeypatch.setattr(declared, "CDEF", path)
    forget()
    try:
        found = list(headers.problems())
    finally:
        forget()
    assert found == ["cdef mach_port_set_mscount(): our own headers have another type"]


def test_what_nothing_compares_is_found(include: Path) -> None:
    (include / "mach/mach_new.h").write_text("int mach_new(void);\n")
    replace(
        include / "mach/kern_return.h",
        "#define KERN_NO_SPACE 3",
        "#define KERN_NO_SPACE 3\n#define KERN_NEW_VALUE { 3 }\n#define KERN_NEW_FLAG",
    )
    assert list(headers.escaped()) == [
        "KERN_NEW_FLAG is defined by our headers and not compared",
        "KERN_NEW_VALUE is defined by our headers and not compared",
        "mach/mach_new.h is a header that zig has no copy of",
    ]


def test_what_apple_does_not_have_is_found(include: Path) -> None:
    replace(
        include / "mach/mach_port.h",
        "kern_return_t mach_port_type(",
        "typedef int mach_new_t;\nkern_return_t mach_port_new(void);\n"
        "kern_return_t mach_port_type(",
    )
    found = headers.differences(toolchain.MACS[0], headers.table())
    assert {"mach_new_t", "mach_port_new()"} <= found


def test_a_difference_that_is_none_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "headers.toml"
    path.write_text(
        headers.LISTED.read_text() + '\n[[difference]]\nnames = ["KERN_SUCCESS"]\nreason = "none"\n'
    )
    monkeypatch.setattr(headers, "LISTED", path)
    assert list(headers.problems()) == [
        f"{target}: KERN_SUCCESS is listed as different, and is not" for target in toolchain.MACS
    ]
