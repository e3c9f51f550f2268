"""Helpers."""

from __future__ import annotations

from collections.abc import Callable

from kit import (
    COPY_SEND,
    MAKE_SEND_ONCE,
    NULL,
    SEND_ONCE_GONE,
    TYPE_RECEIVE,
    call,
    code,
    code_name,
    deallocate,
    ffi,
    kill,
    lib,
    out,
    receive_right,
    refs,
    status,
    take_array,
    type_of,
    vm_allocate,
    vm_deallocate,
    with_send,
)
from letters import ids, message, ool, port, send, take

PAGE = lib.vm_page_size


def test_S_196_reply_ports() -> None:
    """Each mach_reply_port is a new receive right."""
    first, second = lib.mach_reply_port(), lib.mach_reply_port()
    assert first != second
    assert type_of(first) == type_of(second) == TYPE_RECEIVE


def test_S_197_the_reply_port_of_a_thread() -> None:
    """A thread has one reply port for MIG, and a new one when it gave that up."""
    first = lib.mig_get_reply_port()
    assert lib.mig_get_reply_port() == first
    lib.mig_dealloc_reply_port(first)
    second = lib.mig_get_reply_port()
    assert second not in (NULL, first)
    assert type_of(second) & TYPE_RECEIVE
    lib.mig_dealloc_reply_port(second)


def test_S_198_destroy_a_message() -> None:
    """Destroying a received message drops its rights and its reply right, not its destination."""
    name, reply, carried = with_send(), receive_right(), with_send()
    rights = [port(carried, COPY_SEND)]
    assert send(name, COPY_SEND, reply, MAKE_SEND_ONCE, rights=rights) == "KERN_SUCCESS"
    buffer = take(name)
    assert refs(carried) == 2
    lib.mach_msg_destroy(buffer.header)
    assert refs(carried) == 1
    assert ids(reply) == [SEND_ONCE_GONE]
    assert refs(name) == 1


def can_be_sent(address: int) -> bool:
    return send(with_send(), rights=[ool(address, PAGE)]) == "KERN_SUCCESS"


def test_S_199_destroy_memory_in_a_message() -> None:
    """Destroying a message frees memory only where the descriptor says deallocate."""
    kept, freed = vm_allocate(PAGE), vm_allocate(PAGE)
    rights = [ool(kept, PAGE, deallocate=0), ool(freed, PAGE, deallocate=1)]
    lib.mach_msg_destroy(message(NULL, rights=rights).header)
    assert can_be_sent(kept)
    assert not can_be_sent(freed)
    vm_deallocate(kept, PAGE)


def serve_once(name: int, set_reply: Callable[[object], None]) -> str:
    """Serve one request with a reply whose return code, and more, `set_reply` fills in."""

    def demux(request: object, reply: object) -> int:
        error = ffi.cast("mig_reply_error_t *", reply)
        error.Head.msgh_bits = lib.MACH_MSGH_BITS_REMOTE(request.msgh_bits)
        error.Head.msgh_remote_port = request.msgh_remote_port
        error.Head.msgh_size = ffi.sizeof("mig_reply_error_t")
        error.Head.msgh_id = request.msgh_id + 100
        set_reply(error)
        return 1

    callback = ffi.callback("boolean_t(mach_msg_header_t *, mach_msg_header_t *)", demux)
    return code_name(lib.mach_msg_server_once(callback, 4096, name, 0))


def test_S_200_a_request_without_a_reply() -> None:
    """A server routine that returns MIG_NO_REPLY sends nothing; the server goes on."""

    def no_reply(error: object) -> None:
        error.RetCode = lib.MIG_NO_REPLY

    name, reply = with_send(), receive_right()
    assert send(name, COPY_SEND, reply, MAKE_SEND_ONCE) == "KERN_SUCCESS"
    assert serve_once(name, no_reply) == "KERN_SUCCESS"
    assert ids(reply) == []
    assert status(reply).sorights == 1


def test_S_201_a_client_that_died() -> None:
    """A reply to a client that is gone does not stop the server."""

    def and_client_dies(error: object) -> None:
        error.RetCode = 0
        kill(reply)

    name, reply = with_send(), receive_right()
    assert send(name, COPY_SEND, reply, MAKE_SEND_ONCE) == "KERN_SUCCESS"
    assert serve_once(name, and_client_dies) == "KERN_SUCCESS"


def register(*names: int) -> None:
    call("mach_ports_register", ffi.new("mach_port_t[]", names), len(names))


def registered() -> list[int]:
    names, count = out("mach_port_t **"), out("mach_msg_type_number_t *")
    call("mach_ports_lookup", names, count)
    return take_array(names[0], count[0])


def test_S_202_registered_ports() -> None:
    """A task registers up to 3 ports, and a lookup always tells 3."""
    name = with_send()
    assert code(register, *[name] * 4) == "KERN_INVALID_ARGUMENT"
    register(name)
    assert registered() == [name, NULL, NULL]
    assert refs(name) == 2
    register()
    assert registered() == [NULL] * 3


def special_port(which: int) -> int:
    name = out()
    call("task_get_special_port", which, name)
    return name[0]


def test_S_203_special_ports() -> None:
    """The bootstrap port is a special port, with a uref more for each call; 99 is none."""
    assert code(special_port, 99) == "KERN_INVALID_ARGUMENT"
    before = refs(lib.bootstrap_port)
    assert special_port(lib.TASK_BOOTSTRAP_PORT) == lib.bootstrap_port
    assert refs(lib.bootstrap_port) == before + 1
    deallocate(lib.bootstrap_port)
