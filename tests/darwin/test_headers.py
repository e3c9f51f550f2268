"""What the Linux headers define under Apple's names is what Apple's headers say."""

from __future__ import annotations

import shutil
from pathlib import Path

import headers
import pytest
import toolchain

pytestmark = pytest.mark.timeout(120)


def test_everything_is_as_apple_has_it() -> None:
    assert list(headers.problems()) == []
    values = headers.table()
    assert values["MACH_RCV_TIMED_OUT"] == 0x10004003
    assert values["mach_msg_header_t.msgh_id"] == 20
    assert len(values) > 1000


@pytest.mark.parametrize("target", toolchain.MACS, ids=str)
@pytest.mark.parametrize(
    "name",
    ["MACH_NOTIFY_DEAD_NAME", "mach_msg_header_t", "struct kevent64_s.ext", "mach_port_t sign"],
)
def test_a_wrong_entry_is_found(target: toolchain.Target, name: str) -> None:
    values = headers.table()
    wrong = {**values, name: values[name] + 1}
    found = headers.differences(target, wrong) - headers.listed(target).keys()
    assert found == {name}


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
            "mach/message.h",
            "    mach_port_name_t msgh_voucher_port;\n    mach_msg_id_t msgh_id;\n",
            "    mach_msg_id_t msgh_id;\n    mach_port_name_t msgh_voucher_port;\n",
            {"mach_msg_header_t.msgh_id", "mach_msg_header_t.msgh_voucher_port"},
        ),
    ],
)
def test_a_wrong_header_is_found(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    header: str,
    old: str,
    new: str,
    names: set[str],
) -> None:
    shutil.copytree(toolchain.LINUX_HEADERS, tmp_path / "include")
    text = (tmp_path / "include" / header).read_text()
    assert old in text
    (tmp_path / "include" / header).write_text(text.replace(old, new))
    monkeypatch.setattr(headers, "LINUX_HEADERS", tmp_path / "include")
    headers.expressions.cache_clear()
    headers.table.cache_clear()
    try:
        found = headers.differences(toolchain.MACS[0], headers.table())
        assert names <= found - headers.listed(toolchain.MACS[0]).keys()
    finally:
        headers.expressions.cache_clear()
        headers.table.cache_clear()


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
