"""Codes print as name, number and sentences; every number finds the class that tells the blame."""

import re

import pytest

import machio
from machio import _ffi, codes, errors, messages

TABLES = [
    codes.KernCode,
    codes.SendCode,
    codes.ReceiveCode,
    codes.BootstrapCode,
    codes.MigCode,
]
CONSTANTS = [messages.Disposition, messages.PortRightType, messages.NotificationId]


def test_a_code_prints_as_c_name_and_number():
    assert str(codes.SendCode.INVALID_DEST) == "MACH_SEND_INVALID_DEST (0x10000003)"
    assert str(codes.ReceiveCode.TIMED_OUT) == "MACH_RCV_TIMED_OUT (0x10004003)"
    assert str(codes.KernCode.INVALID_NAME) == "KERN_INVALID_NAME (15)"
    assert str(codes.BootstrapCode.NOT_PRIVILEGED) == "BOOTSTRAP_NOT_PRIVILEGED (1100)"
    assert str(codes.MigCode.BAD_ID) == "MIG_BAD_ID (-303)"
    assert str(messages.Disposition.MOVE_RECEIVE) == "MACH_MSG_TYPE_MOVE_RECEIVE (16)"


def test_a_code_is_a_number_too():
    assert codes.SendCode.INVALID_DEST == 0x10000003
    assert {0x10000003: "x"}[codes.SendCode.INVALID_DEST] == "x"


@pytest.mark.parametrize("table", TABLES)
def test_every_code_explains_itself(table):
    for code in table:
        assert codes.explain(code.value).startswith(f"{code}: {code.sentence}")
        for sentence in filter(None, (code.sentence, code.advice)):
            assert re.match(r"[A-Z]", sentence), sentence
            assert sentence.endswith((".", ")."))


@pytest.mark.parametrize("table", [*TABLES[:4], *CONSTANTS])
def test_every_value_is_the_headers(table):
    named = [code for code in table if hasattr(_ffi.lib, code.c_name)]
    assert named
    assert {code.c_name: getattr(_ffi.lib, code.c_name) for code in named} == {
        code.c_name: code.value for code in named
    }


def test_not_privileged_says_who_owns_the_name_and_what_to_do():
    error = errors.bootstrap_error(1100, "bootstrap_check_in('x')", "The server says more.")
    assert str(error) == (
        "bootstrap_check_in('x'): BOOTSTRAP_NOT_PRIVILEGED (1100): The bootstrap server does not"
        " permit it. The sandbox forbids mach-register, or another job owns the name: choose one of"
        " your own, or stop that job. The server says more."
    )


def test_shortages_are_told_apart_from_the_code():
    number = codes.ReceiveCode.BODY_ERROR | 0x2000
    assert codes.split(number) == (codes.ReceiveCode.BODY_ERROR, 0x2000)
    assert codes.lookup(number) is codes.ReceiveCode.BODY_ERROR
    assert codes.explain(number).startswith(
        "MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE (0x1000600c): "
    )
    assert "no room for another name" in codes.explain(number)


def test_a_shortage_may_stand_alone():
    assert codes.split(0x400) == (0, 0x400)
    assert codes.explain(0x400) == "MACH_MSG_VM_KERNEL (0x400): The system was short of memory."


def test_unknown_numbers_stay_numbers():
    error = errors.mach_error(987654, "mach_call")
    assert type(error) is errors.MachError
    assert error.code == 987654
    assert "987654" in str(error)
    assert codes.split(1102) == (1102, 0), "a code that happens to have shortage bits"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (15, machio.KernError),
        (0x10000003, machio.DeadDestinationError),
        (0x10000004, machio.SendTimedOut),
        (0x1000000A, machio.SendError),
        (0x10004003, machio.ReceiveTimedOut),
        (0x10004006, machio.ReceiveError),
        (0x1000600C, machio.ReceiveError),
        (1100, machio.BootstrapError),
        (1102, machio.UnknownServiceError),
        (-303, machio.MigError),
    ],
)
def test_each_number_has_its_class(number, kind):
    error = errors.mach_error(number, "call")
    assert type(error) is kind
    assert error.number == number
    assert isinstance(error, machio.MachioError)


def test_a_bootstrap_call_that_met_a_mach_error_is_still_a_bootstrap_error():
    error = errors.bootstrap_error(0x10000003, "bootstrap_look_up('x')")
    assert type(error) is machio.BootstrapError
    assert error.code is codes.SendCode.INVALID_DEST


@pytest.mark.parametrize(
    "kind", [machio.SendTimedOut, machio.ReceiveTimedOut, machio.HandshakeTimedOut]
)
def test_timeouts_are_the_builtin_one_too(kind):
    assert issubclass(kind, TimeoutError)
    assert issubclass(kind, machio.MachioError)


def test_the_tree_in_the_manual_is_the_tree():
    tree = errors.__doc__.split("::")[1].rsplit("\n\n", 1)[0]
    drawn = re.findall(r"^[ │├└─]*(\w+)", tree, re.MULTILINE)
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, machio.MachioError)
    }
    assert set(drawn) == defined
