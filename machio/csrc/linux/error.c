/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codes as text: one table for all of Mach, of MIG and of the bootstrap server. And the sentence by
 * which a call of this layer explains a failure whose code does not say enough.
 *
 * The numbers do not overlap, but for the several kinds of success. The table is constant and each
 * thread has a sentence of its own, so there is no lock and nothing to free.
 */
#include "internal.h"

#include <errno.h>
#include <mach/mach_error.h>
#include <mach/message.h>
#include <mach/mig_errors.h>
#include <servers/bootstrap.h>
#include <stdarg.h>
#include <stdio.h>

struct code_text {
    int code;
    const char *text;
};

#define TEXT(code, sentence) {(code), #code ": " sentence}

static const struct code_text texts[] = {
    TEXT(KERN_SUCCESS, "success"),
    TEXT(KERN_INVALID_ADDRESS, "the address is not mapped"),
    TEXT(KERN_PROTECTION_FAILURE, "the memory is mapped but may not be used in this way"),
    TEXT(KERN_NO_SPACE, "there is no room left for another name or mapping"),
    TEXT(KERN_INVALID_ARGUMENT, "an argument is not valid for this call"),
    TEXT(KERN_FAILURE, "the call could not be carried out in the present state"),
    TEXT(KERN_RESOURCE_SHORTAGE, "the system is short of memory or descriptors"),
    TEXT(KERN_NOT_RECEIVER, "the task does not hold the receive right"),
    TEXT(KERN_NO_ACCESS, "access is not allowed"),
    TEXT(KERN_MEMORY_FAILURE, "the memory object is destroyed"),
    TEXT(KERN_MEMORY_ERROR, "the memory object could not supply the data"),
    TEXT(KERN_ALREADY_IN_SET, "the receive right is already in this port set"),
    TEXT(KERN_NOT_IN_SET, "the receive right is not in this port set"),
    TEXT(KERN_NAME_EXISTS, "the name is already in use"),
    TEXT(KERN_ABORTED, "the call was aborted"),
    TEXT(KERN_INVALID_NAME, "the name denotes no right in this task"),
    TEXT(KERN_INVALID_TASK, "the task port does not denote a living task"),
    TEXT(KERN_INVALID_RIGHT, "the name denotes a right of another kind"),
    TEXT(KERN_INVALID_VALUE, "a value is out of range"),
    TEXT(KERN_UREFS_OVERFLOW, "the name has too many user references"),
    TEXT(KERN_INVALID_CAPABILITY, "the right given is dead or does not fit"),
    TEXT(KERN_RIGHT_EXISTS, "the task already holds this right under another name"),
    TEXT(KERN_INVALID_HOST, "the port does not denote a host"),
    TEXT(KERN_MEMORY_PRESENT, "the memory is already there"),
    TEXT(KERN_MEMORY_DATA_MOVED, "the memory was moved away"),
    TEXT(KERN_MEMORY_RESTART_COPY, "the copy has to be started again"),
    TEXT(KERN_INVALID_PROCESSOR_SET, "the port does not denote a processor set"),
    TEXT(KERN_POLICY_LIMIT, "the scheduling limits do not allow this"),
    TEXT(KERN_INVALID_POLICY, "the scheduling policy is not valid here"),
    TEXT(KERN_INVALID_OBJECT, "the object does not exist any more"),
    TEXT(KERN_ALREADY_WAITING, "somebody is already waiting"),
    TEXT(KERN_DEFAULT_SET, "the default set cannot be destroyed"),
    TEXT(KERN_EXCEPTION_PROTECTED, "the exception port is protected"),
    TEXT(KERN_INVALID_LEDGER, "the ledger is not valid"),
    TEXT(KERN_INVALID_MEMORY_CONTROL, "the port is not a memory control port"),
    TEXT(KERN_INVALID_SECURITY, "the port is not a host security port"),
    TEXT(KERN_NOT_DEPRESSED, "the thread's priority is not depressed"),
    TEXT(KERN_TERMINATED, "the object has been terminated"),
    TEXT(KERN_LOCK_SET_DESTROYED, "the lock set has been destroyed"),
    TEXT(KERN_LOCK_UNSTABLE, "the holder of the lock ended while holding it"),
    TEXT(KERN_LOCK_OWNED, "the lock is held by another thread"),
    TEXT(KERN_LOCK_OWNED_SELF, "the lock is held by this very thread"),
    TEXT(KERN_SEMAPHORE_DESTROYED, "the semaphore has been destroyed"),
    TEXT(KERN_RPC_SERVER_TERMINATED, "the server ended during the call"),
    TEXT(KERN_RPC_TERMINATE_ORPHAN, "a call without a caller is to end"),
    TEXT(KERN_RPC_CONTINUE_ORPHAN, "a call without a caller may go on"),
    TEXT(KERN_NOT_SUPPORTED, "this is not supported"),
    TEXT(KERN_NODE_DOWN, "the other machine does not answer"),
    TEXT(KERN_NOT_WAITING, "the thread is not waiting"),
    TEXT(KERN_OPERATION_TIMED_OUT, "the time was up before the call was done"),
    TEXT(KERN_CODESIGN_ERROR, "the signature of the code is not valid"),
    TEXT(KERN_POLICY_STATIC, "the policy cannot be changed any more"),
    TEXT(KERN_INSUFFICIENT_BUFFER_SIZE, "the buffer is too small for the answer"),
    TEXT(KERN_DENIED, "the security policy does not allow this"),
    TEXT(KERN_MISSING_KC, "the kernel collection is missing"),
    TEXT(KERN_INVALID_KC, "the kernel collection is not valid"),
    TEXT(KERN_NOT_FOUND, "nothing was found"),
    TEXT(KERN_RETURN_MAX, "not an error but the largest number of one"),

    TEXT(MACH_MSG_IPC_SPACE, "no room in the task for another name"),
    TEXT(MACH_MSG_VM_SPACE, "no room in the address space for out-of-line memory"),
    TEXT(MACH_MSG_IPC_KERNEL, "the system is short of what a right needs"),
    TEXT(MACH_MSG_VM_KERNEL, "the system is short of memory for out-of-line data"),

    TEXT(MACH_SEND_IN_PROGRESS, "the send is still going on"),
    TEXT(MACH_SEND_INVALID_DATA, "the message cannot be read at its address"),
    TEXT(MACH_SEND_INVALID_DEST, "the destination is not a right to a living port"),
    TEXT(MACH_SEND_TIMED_OUT,
         "the queue stayed full for the time given; the message is back in the buffer"),
    TEXT(MACH_SEND_INVALID_VOUCHER, "the voucher port is not a voucher"),
    TEXT(MACH_SEND_INTERRUPTED, "the send was interrupted; the message is back in the buffer"),
    TEXT(MACH_SEND_MSG_TOO_SMALL, "the size is too small for what the message says it contains"),
    TEXT(MACH_SEND_INVALID_REPLY, "the reply port is not a right that its disposition needs"),
    TEXT(MACH_SEND_INVALID_RIGHT,
         "a descriptor names a right that the task does not hold; the message is destroyed"),
    TEXT(MACH_SEND_INVALID_NOTIFY, "the notify port is not valid"),
    TEXT(MACH_SEND_INVALID_MEMORY, "out-of-line memory cannot be read; the message is destroyed"),
    TEXT(MACH_SEND_NO_BUFFER, "the system has no room for the message"),
    TEXT(MACH_SEND_TOO_LARGE, "the message is larger than any message may be"),
    TEXT(MACH_SEND_INVALID_TYPE, "a descriptor has an unknown type or a wrong field"),
    TEXT(MACH_SEND_INVALID_HEADER, "the dispositions in the header are not valid"),
    TEXT(MACH_SEND_INVALID_TRAILER, "the trailer to be sent is not valid"),
    TEXT(MACH_SEND_INVALID_CONTEXT, "the sender's context does not match that of the destination"),
    TEXT(MACH_SEND_INVALID_OPTIONS, "the send options are not valid together"),
    TEXT(MACH_SEND_INVALID_RT_OOL_SIZE,
         "the out-of-line memory is too large for a real-time thread"),
    TEXT(MACH_SEND_NO_GRANT_DEST, "the destination takes no messages with rights"),
    TEXT(MACH_SEND_MSG_FILTERED, "a filter refused the message"),
    TEXT(MACH_SEND_AUX_TOO_SMALL, "the auxiliary data is too small"),
    TEXT(MACH_SEND_AUX_TOO_LARGE, "the auxiliary data is too large"),

    TEXT(MACH_RCV_IN_PROGRESS, "the receive is still going on"),
    TEXT(MACH_RCV_INVALID_NAME, "the name is not a receive right or port set of this task"),
    TEXT(MACH_RCV_TIMED_OUT, "no message arrived in the time given"),
    TEXT(MACH_RCV_TOO_LARGE, "the next message is larger than the buffer"),
    TEXT(MACH_RCV_INTERRUPTED, "the receive was interrupted"),
    TEXT(MACH_RCV_PORT_CHANGED, "the port was moved or destroyed during the receive"),
    TEXT(MACH_RCV_INVALID_NOTIFY, "the notify port is not valid"),
    TEXT(MACH_RCV_INVALID_DATA, "the buffer cannot be written; the message is destroyed"),
    TEXT(MACH_RCV_PORT_DIED, "the port was moved or destroyed during the receive"),
    TEXT(MACH_RCV_IN_SET, "the receive right is in a port set"),
    TEXT(MACH_RCV_HEADER_ERROR, "the rights in the header could not be received"),
    TEXT(MACH_RCV_HEADER_ERROR | MACH_MSG_IPC_SPACE,
         "no room in the task for a name in the header"),
    TEXT(MACH_RCV_HEADER_ERROR | MACH_MSG_IPC_KERNEL,
         "the system is short of what a right in the header needs"),
    TEXT(MACH_RCV_BODY_ERROR, "the rights or memory of a descriptor could not be received"),
    TEXT(MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE,
         "no room in the task for the name of a received right"),
    TEXT(MACH_RCV_BODY_ERROR | MACH_MSG_VM_SPACE,
         "no room in the address space for received memory"),
    TEXT(MACH_RCV_BODY_ERROR | MACH_MSG_IPC_KERNEL,
         "the system is short of what a received right needs"),
    TEXT(MACH_RCV_BODY_ERROR | MACH_MSG_VM_KERNEL,
         "the system is short of memory for received data"),
    TEXT(MACH_RCV_INVALID_TYPE, "the scatter list has a wrong type"),
    TEXT(MACH_RCV_SCATTER_SMALL, "a region of the scatter list is too small"),
    TEXT(MACH_RCV_INVALID_TRAILER, "the trailer asked for does not exist"),
    TEXT(MACH_RCV_IN_PROGRESS_TIMED, "the receive is still going on, with a timeout"),
    TEXT(MACH_RCV_INVALID_REPLY, "the reply port is not valid for a strict reply"),
    TEXT(MACH_RCV_INVALID_ARGUMENTS,
         "the arguments of the receive are not valid; it was not begun"),

    TEXT(MIG_TYPE_ERROR, "the message has not the shape that the routine expects"),
    TEXT(MIG_REPLY_MISMATCH, "the reply has not the id that was expected"),
    TEXT(MIG_REMOTE_ERROR, "the server found an error it does not describe"),
    TEXT(MIG_BAD_ID, "the server knows no routine with this id"),
    TEXT(MIG_BAD_ARGUMENTS, "the request has a wrong size or wrong arguments"),
    TEXT(MIG_NO_REPLY, "the server will not reply, or will reply later"),
    TEXT(MIG_EXCEPTION, "the server raised an exception"),
    TEXT(MIG_ARRAY_TOO_LARGE, "the array is larger than the room for it"),
    TEXT(MIG_SERVER_DIED, "the server died before it replied"),
    TEXT(MIG_TRAILER_ERROR, "the trailer is unknown or too small"),

    TEXT(BOOTSTRAP_NOT_PRIVILEGED,
         "the name belongs to another process, or the sandbox does not allow it"),
    TEXT(BOOTSTRAP_NAME_IN_USE, "the name is in use"),
    TEXT(BOOTSTRAP_UNKNOWN_SERVICE, "no service has this name; has its owner checked it in?"),
    TEXT(BOOTSTRAP_SERVICE_ACTIVE, "the service is already checked in"),
    TEXT(BOOTSTRAP_BAD_COUNT, "too many names at once"),
    TEXT(BOOTSTRAP_NO_MEMORY, "the server is out of memory, or the port is dead"),
    TEXT(BOOTSTRAP_NO_CHILDREN, "there are no children"),
};

static const char *find(int code) {
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].code == code)
            return texts[i].text;
    }
    return NULL;
}

static const char *describe(int code) {
    const char *text = find(code);

    /* A send that timed out can say as well that a right could not be given back. */
    if (!text && err_get_system(code) == err_get_system(err_mach_ipc))
        text = find(code & ~MACH_MSG_MASK);

    return text ? text : "unknown error code";
}

char *mach_error_string(mach_error_t error_value) {
    return (char *)describe(error_value);
}

/* The one call whose purpose is to print. */
void mach_error(const char *str, mach_error_t error_value) {
    fprintf(stderr, "%s %s (%x)\n", str, describe(error_value), (unsigned)error_value);
}

const char *bootstrap_strerror(kern_return_t r) {
    return r == BOOTSTRAP_SUCCESS ? "BOOTSTRAP_SUCCESS: success" : describe(r);
}

/* ---- sentences ----------------------------------------------------------------------------- */

static _Thread_local char sentence[1024];

void mio_say(const char *format, ...) {
    int saved = errno;
    va_list arguments;

    sentence[0] = '\0';
    if (format != NULL) {
        va_start(arguments, format);
        vsnprintf(sentence, sizeof sentence, format, arguments);
        va_end(arguments);
    }
    errno = saved;
}

const char *machio_last_error(void) {
    return sentence[0] != '\0' ? sentence : NULL;
}
