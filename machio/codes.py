"""Mach's return codes: name, number, a sentence that says what happened, and what to do.

Every code is a member of an `IntEnum` that carries the C name minus its prefix, and prints as C
name and number: ``str(SendCode.INVALID_DEST)`` is ``MACH_SEND_INVALID_DEST (0x10000003)``.
`explain` turns any integer that a Mach call returned into the whole text.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Self

# A send or receive code may have these OR-ed in: what the call ran out of on the way.
_SHORTAGES = {
    0x2000: ("MACH_MSG_IPC_SPACE", "there was no room for another name"),
    0x1000: ("MACH_MSG_VM_SPACE", "there was no address space"),
    0x0800: ("MACH_MSG_IPC_KERNEL", "the system was short of memory for rights"),
    0x0400: ("MACH_MSG_VM_KERNEL", "the system was short of memory"),
}
SHORTAGE_MASK = 0x3E00


class CEnum(IntEnum):
    """Constants of a C header: members lack the prefix, `str()` is the C name and the number."""

    c_prefix: ClassVar[str]
    hexadecimal: ClassVar[bool]

    def __init_subclass__(cls, *, prefix: str = "", hexadecimal: bool = False) -> None:
        cls.c_prefix = prefix
        cls.hexadecimal = hexadecimal

    @property
    def c_name(self) -> str:
        """The constant's name in C."""
        return self.c_prefix + self.name

    def __str__(self) -> str:
        return (
            f"{self.c_name} ({self.value:#x})"
            if self.hexadecimal
            else f"{self.c_name} ({self.value})"
        )


class ReturnCode(CEnum):
    """A code that a Mach call returns; carries its sentence and its advice."""

    sentence: str
    advice: str

    def __new__(cls, value: int, sentence: str, advice: str = "") -> Self:
        """Make a member out of its row in the table."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        member.advice = advice
        return member


_FULL_TABLE = (
    "Close rights that are no longer needed, or raise the limit on open files (ulimit -n)."
)
_GONE = "Get a new right, for example by looking the service up again."
_OWN_BUG = "This is a mistake in the calling code."


class KernCode(ReturnCode, prefix="KERN_"):
    """kern_return_t, as the calls on ports and rights give it."""

    SUCCESS = 0, "The call succeeded."
    INVALID_ADDRESS = 1, "The address is not mapped in this task.", _OWN_BUG
    PROTECTION_FAILURE = 2, "The memory does not permit this access.", _OWN_BUG
    NO_SPACE = 3, "The task has no room for another name.", _FULL_TABLE
    INVALID_ARGUMENT = 4, "An argument does not fit the object.", _OWN_BUG
    FAILURE = 5, "The call cannot be done on this object in its present state."
    RESOURCE_SHORTAGE = 6, "The system is short of memory or of open files.", _FULL_TABLE
    NOT_RECEIVER = 7, "The task does not hold the receive right.", _OWN_BUG
    NO_ACCESS = 8, "The object may not be accessed in this way.", "Check privileges and sandbox."
    MEMORY_FAILURE = 9, "The memory object that backs the page was destroyed."
    MEMORY_ERROR = 10, "The memory object that backs the page reported an error."
    ALREADY_IN_SET = 11, "The port is a member of that set already."
    NOT_IN_SET = 12, "The port is not a member of that set."
    NAME_EXISTS = 13, "The name is in use for something else.", "Choose another name."
    ABORTED = 14, "The operation was aborted.", "Try again."
    INVALID_NAME = (
        15,
        "No right has this name in this task.",
        ("The right was closed, given away or inherited from before a fork."),
    )
    INVALID_TASK = 16, "The task has ended."
    INVALID_RIGHT = 17, "The name stands for another kind of right, or for a dead name."
    INVALID_VALUE = 18, "A value is outside the permitted range.", _OWN_BUG
    UREFS_OVERFLOW = 19, "The name's count of user references is full."
    INVALID_CAPABILITY = 20, "The port is dead, or this right must not be used in this way.", _GONE
    RIGHT_EXISTS = 21, "The task holds a right to that port under another name already."
    INVALID_HOST = 22, "The right is not one to a host."
    MEMORY_PRESENT = 23, "The memory object has this page already."
    MEMORY_DATA_MOVED = 24, "The page was copied elsewhere meanwhile."
    MEMORY_RESTART_COPY = 25, "The strategic copy has to be restarted."
    INVALID_PROCESSOR_SET = 26, "The right is not one to a processor set."
    POLICY_LIMIT = 27, "The scheduling parameters exceed the limit."
    INVALID_POLICY = 28, "The scheduling policy is not enabled."
    INVALID_OBJECT = 29, "The memory object is not valid."
    ALREADY_WAITING = 30, "Somebody waits on the object already."
    DEFAULT_SET = 31, "The default processor set cannot be destroyed."
    EXCEPTION_PROTECTED = 32, "The exception port is protected."
    INVALID_LEDGER = 33, "The right is not one to a ledger."
    INVALID_MEMORY_CONTROL = 34, "The right is not one to a memory control."
    INVALID_SECURITY = 35, "The right is not one to the host's security."
    NOT_DEPRESSED = 36, "The thread's priority is not depressed."
    TERMINATED = 37, "The object has been terminated."
    LOCK_SET_DESTROYED = 38, "The lock set has been destroyed."
    LOCK_UNSTABLE = 39, "The thread that held the lock ended without giving it back."
    LOCK_OWNED = 40, "The lock is held by another thread."
    LOCK_OWNED_SELF = 41, "The lock is held by the calling thread."
    SEMAPHORE_DESTROYED = 42, "The semaphore has been destroyed."
    RPC_SERVER_TERMINATED = 43, "The server of the call ended before it answered.", _GONE
    RPC_TERMINATE_ORPHAN = 44, "The orphaned call is to be terminated."
    RPC_CONTINUE_ORPHAN = 45, "The orphaned call goes on."
    NOT_SUPPORTED = 46, "This system does not support the call."
    NODE_DOWN = 47, "The other machine is down."
    NOT_WAITING = 48, "The thread was not waiting."
    OPERATION_TIMED_OUT = 49, "The operation timed out.", "Allow more time, or see what is stuck."
    CODESIGN_ERROR = 50, "The page's code signature is not valid."
    POLICY_STATIC = 51, "The policy cannot be changed at run time."
    INSUFFICIENT_BUFFER_SIZE = 52, "The buffer is too small for the answer.", _OWN_BUG
    DENIED = 53, "The system's policy does not permit the call.", "Check privileges and sandbox."
    MISSING_KC = 54, "The kernel collection is missing."
    INVALID_KC = 55, "The kernel collection is not valid."
    NOT_FOUND = 56, "What was asked for was not found."


class SendCode(ReturnCode, prefix="MACH_SEND_", hexadecimal=True):
    """mach_msg_return_t of the sending half of mach_msg."""

    IN_PROGRESS = 0x1000_0001, "The send has not ended yet."
    INVALID_DATA = 0x1000_0002, "The bytes of the message cannot be read.", _OWN_BUG
    INVALID_DEST = 0x1000_0003, "The destination's port is dead, or the right is gone.", _GONE
    TIMED_OUT = (
        0x1000_0004,
        "The destination's queue stayed full for the whole time allowed.",
        ("Allow more time, or see why the receiver does not receive."),
    )
    INVALID_VOUCHER = 0x1000_0005, "The voucher is not valid.", _OWN_BUG
    INTERRUPTED = 0x1000_0007, "A signal interrupted the send.", "Try again."
    MSG_TOO_SMALL = (
        0x1000_0008,
        "The message is smaller than its own header and descriptors.",
        _OWN_BUG,
    )
    INVALID_REPLY = 0x1000_0009, "The reply right is gone or of the wrong kind.", _OWN_BUG
    INVALID_RIGHT = (
        0x1000_000A,
        "A right in the message is gone, of the wrong kind or immovable, as task ports may be.",
        ("The message and every right in it were destroyed."),
    )
    INVALID_NOTIFY = 0x1000_000B, "The notify port is not valid.", _OWN_BUG
    INVALID_MEMORY = (
        0x1000_000C,
        "Out-of-line memory of the message cannot be read.",
        ("The message and every right in it were destroyed."),
    )
    NO_BUFFER = (
        0x1000_000D,
        "The system has no room for the message.",
        ("Wait until queued messages were received, then try again."),
    )
    TOO_LARGE = (
        0x1000_000E,
        "The message is too large, or carries too many rights.",
        ("Split it, or send large data out of line."),
    )
    INVALID_TYPE = 0x1000_000F, "A descriptor of the message has an unknown type.", _OWN_BUG
    INVALID_HEADER = 0x1000_0010, "The header's dispositions are not valid.", _OWN_BUG
    INVALID_TRAILER = 0x1000_0011, "The trailer is not valid.", _OWN_BUG
    INVALID_CONTEXT = 0x1000_0012, "The message's context is not valid.", _OWN_BUG
    INVALID_OPTIONS = 0x1000_0013, "The options do not go with this message.", _OWN_BUG
    INVALID_RT_OOL_SIZE = 0x1000_0015, "Out-of-line memory is too large for a real-time thread."
    NO_GRANT_DEST = 0x1000_0016, "The destination does not accept what the message grants."
    MSG_FILTERED = 0x1000_0017, "A filter of the system rejected the message.", "Check the sandbox."
    AUX_TOO_SMALL = 0x1000_0018, "The auxiliary data is too small.", _OWN_BUG
    AUX_TOO_LARGE = 0x1000_0019, "The auxiliary data is too large.", _OWN_BUG


class ReceiveCode(ReturnCode, prefix="MACH_RCV_", hexadecimal=True):
    """mach_msg_return_t of the receiving half of mach_msg."""

    IN_PROGRESS = 0x1000_4001, "The receive has not ended yet."
    INVALID_NAME = (
        0x1000_4002,
        "The name is not one of a receive right or port set.",
        ("The right was closed, given away or inherited from before a fork."),
    )
    TIMED_OUT = 0x1000_4003, "No message arrived within the time allowed.", "Allow more time."
    TOO_LARGE = 0x1000_4004, "The message is larger than the buffer."
    INTERRUPTED = 0x1000_4005, "A signal interrupted the receive.", "Try again."
    PORT_CHANGED = 0x1000_4006, "The port or set was destroyed or given away during the receive."
    INVALID_NOTIFY = 0x1000_4007, "The notify port is not valid.", _OWN_BUG
    INVALID_DATA = 0x1000_4008, "The buffer cannot hold the message, which is lost.", _OWN_BUG
    PORT_DIED = 0x1000_4009, "The port died during the receive."
    IN_SET = 0x1000_400A, "The port is a member of a set."
    HEADER_ERROR = 0x1000_400B, "The message could not be delivered and is lost.", _FULL_TABLE
    BODY_ERROR = (
        0x1000_400C,
        "A right or memory of the message could not be delivered.",
        _FULL_TABLE,
    )
    INVALID_TYPE = 0x1000_400D, "The receive options are not valid.", _OWN_BUG
    SCATTER_SMALL = 0x1000_400E, "The scatter list is too small.", _OWN_BUG
    INVALID_TRAILER = 0x1000_400F, "The trailer is not valid.", _OWN_BUG
    IN_PROGRESS_TIMED = 0x1000_4011, "The receive, which has a timeout, has not ended yet."
    INVALID_REPLY = 0x1000_4012, "The reply right of the combined call is not valid.", _OWN_BUG
    INVALID_ARGUMENTS = 0x1000_4013, "The arguments of the receive are not valid.", _OWN_BUG


class BootstrapCode(ReturnCode, prefix="BOOTSTRAP_"):
    """kern_return_t of the bootstrap calls."""

    NOT_PRIVILEGED = (
        1100,
        "The bootstrap server does not permit it.",
        (
            "The sandbox forbids mach-register, or another job owns the name: choose one of your"
            " own, or stop that job."
        ),
    )
    NAME_IN_USE = 1101, "The name is in use.", "Choose another name."
    UNKNOWN_SERVICE = (
        1102,
        "No service has this name.",
        ("Check the spelling, and that the service runs under the same bootstrap server."),
    )
    SERVICE_ACTIVE = (
        1103,
        "The service is checked in already.",
        ("Close the right of the first check-in, or choose another name."),
    )
    BAD_COUNT = 1104, "The request asks for too many names at once.", "Ask for fewer."
    NO_MEMORY = 1105, "The bootstrap server is out of memory, or the right given to it is dead."
    NO_CHILDREN = 1106, "There is no such child context."


class MigCode(ReturnCode, prefix="MIG_"):
    """Error codes of routines in MIG's format."""

    TYPE_ERROR = -300, "An argument has the wrong type.", _OWN_BUG
    REPLY_MISMATCH = -301, "The reply does not belong to the request."
    REMOTE_ERROR = -302, "The server reported an error it could not name."
    BAD_ID = -303, "The server knows no routine with this id."
    BAD_ARGUMENTS = -304, "The server found the arguments malformed.", _OWN_BUG
    NO_REPLY = -305, "The server will not reply, or will do so later."
    EXCEPTION = -306, "The server raised an exception."
    ARRAY_TOO_LARGE = -307, "An array is larger than the routine permits.", _OWN_BUG
    SERVER_DIED = -308, "The server dropped the request or died before it answered.", _GONE
    TRAILER_ERROR = -309, "The trailer of the request is not the one that the routine needs."


_TABLES: tuple[type[ReturnCode], ...] = (KernCode, SendCode, ReceiveCode, BootstrapCode, MigCode)
_BY_NUMBER: dict[int, ReturnCode] = {code.value: code for table in _TABLES for code in table}


def split(number: int) -> tuple[int, int]:
    """Split a mach_msg result into the bare code and the shortage bits that were OR-ed in."""
    if (
        number > 0
        and number & SHORTAGE_MASK
        and (number >> 26) in (0, 4)
        and number not in _BY_NUMBER
    ):
        return number & ~SHORTAGE_MASK, number & SHORTAGE_MASK
    return number, 0


def lookup(number: int) -> ReturnCode | None:
    """Return the code that `number` stands for, shortage bits apart, or None for an unknown one."""
    return _BY_NUMBER.get(split(number)[0])


def explain(number: int, *, advice: bool = True) -> str:
    """Return name, number, what happened and what to do, for any number a Mach call returned."""
    bare, shortages = split(number)
    code = _BY_NUMBER.get(bare)
    found = [text for bit, text in _SHORTAGES.items() if shortages & bit]
    if code is None:
        return f"{number} ({number & 0xFFFFFFFF:#x}): not a code that machio knows."
    if not found:
        return f"{code}: {code.sentence} {code.advice if advice else ''}".rstrip()
    names = [name for name, _ in found]
    if bare:
        names.insert(0, code.c_name)
    happened = [f"{why[0].upper()}{why[1:]}." for _, why in found]
    if bare:
        happened.insert(0, code.sentence)
    return f"{' | '.join(names)} ({number:#x}): {' '.join(happened)}"
