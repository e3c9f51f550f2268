"""Layout and constants."""

from __future__ import annotations

from kit import COPY_SEND, MAKE_SEND_ONCE, MOVE_RECEIVE, ffi, lib
from letters import guarded, ool_ports, port


def sizes(*types: str) -> list[int]:
    return [ffi.sizeof(type_) for type_ in types]


def test_S_001_sizes_of_messages_and_descriptors() -> None:
    """Headers, bodies and each kind of descriptor have the kernel's packed sizes."""
    assert sizes("mach_msg_header_t", "mach_msg_body_t", "mach_msg_base_t") == [24, 4, 28]
    kinds = "port", "ool", "ool_ports", "guarded_port", "type"
    assert sizes(*(f"mach_msg_{kind}_descriptor_t" for kind in kinds)) == [12, 16, 16, 16, 12]


def test_S_002_sizes_of_trailers() -> None:
    """Each trailer ends where the next one adds its field; the context lies at byte 52."""
    assert sizes(
        "mach_msg_trailer_t",
        "mach_msg_seqno_trailer_t",
        "mach_msg_security_trailer_t",
        "mach_msg_audit_trailer_t",
        "mach_msg_context_trailer_t",
        "mach_msg_mac_trailer_t",
    ) == [8, 12, 20, 52, 60, 68]
    assert ffi.offsetof("mach_msg_context_trailer_t", "msgh_context") == 52


def test_S_003_sizes_of_port_structures() -> None:
    """Status, limits, options, extended info, QoS and guard info have the kernel's sizes."""
    names = "status", "limits", "options", "info_ext", "qos", "guard_info"
    assert sizes(*(f"mach_port_{name}_t" for name in names)) == [40, 4, 24, 68, 8, 8]


def test_S_004_sizes_of_events_and_error_replies() -> None:
    """Events take 32 and 48 bytes; MIG's error reply takes 36 and has its code at 32."""
    assert sizes("struct kevent", "struct kevent64_s", "mig_reply_error_t") == [32, 48, 36]
    assert ffi.offsetof("mig_reply_error_t", "RetCode") == 32


def test_S_005_where_type_and_disposition_lie() -> None:
    """Every descriptor that carries ports has its disposition at byte 10 and its type at 11."""
    packed = {
        lib.MACH_MSG_PORT_DESCRIPTOR: port(1, COPY_SEND),
        lib.MACH_MSG_OOL_PORTS_DESCRIPTOR: ool_ports(1, 1, MAKE_SEND_ONCE),
        lib.MACH_MSG_GUARDED_PORT_DESCRIPTOR: guarded(1, 1, 1),
    }
    for (kind, data), disposition in zip(
        packed.items(), (COPY_SEND, MAKE_SEND_ONCE, MOVE_RECEIVE), strict=True
    ):
        blank = ffi.new("char[16]")
        lib.machio_descriptor_set_type(blank, kind)
        lib.machio_descriptor_set_disposition(blank, disposition)
        assert ffi.buffer(blank)[10:12] == bytes([disposition, kind]) == data[10:12]
        assert lib.machio_descriptor_size(blank) == len(data)


def test_S_006_the_data_representation() -> None:
    """NDR_record says little-endian integers, ASCII, IEEE."""
    record = ffi.addressof(lib, "NDR_record")
    assert ffi.buffer(record)[:] == bytes([0, 0, 0, 0, 1, 0, 0, 0])


def test_S_007_dispositions_in_the_header() -> None:
    """MACH_MSGH_BITS puts the reply's disposition a byte above the destination's."""
    assert lib.MACH_MSGH_BITS(19, 21) == 0x1513
    assert lib.MACH_MSGH_BITS_LOCAL(0x1513) == 21
    assert lib.MACH_MSGH_BITS_REMOTE(0x1513) == 19


def test_S_008_sizes_of_requested_trailers() -> None:
    """REQUESTED_TRAILER_SIZE tells the size of each kind, and the largest for unknown ones."""

    def requested(elements: int) -> int:
        return lib.REQUESTED_TRAILER_SIZE(lib.MACH_RCV_TRAILER_ELEMENTS(elements))

    known = [requested(elements) for elements in (0, 1, 2, 3, 4, 7, 8)]
    assert known == [8, 12, 20, 52, 60, 68, 68]
    assert requested(5) == 68
