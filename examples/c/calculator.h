/* SPDX-License-Identifier: Apache-2.0 */
/* The messages of calculator.py in C, as mig.c_header(Calculator) has them with longer names. */

#ifndef CALCULATOR_H
#define CALCULATOR_H

#include <mach/mach.h>
#include <mach/mig_errors.h>
#include <mach/ndr.h>
#include <stdint.h>

#define SERVICE "org.machio.example.calculator"

enum { ADD = 8000, MEAN, GREET, MOVE, JOIN, SUMS, NOTE };
enum { NUMBERS_MAX = 1 << 20, LISTENERS_MAX = 8 };

typedef struct {
    int16_t layer;
    double x, y;
} point_t;

#pragma pack(push, 4)

typedef struct {
    mach_msg_header_t Head;
    NDR_record_t NDR;
    int8_t a;
    char aPad[3];
    uint16_t b;
    char bPad[2];
    int64_t c;
} add_request_t;

typedef struct {
    mach_msg_header_t Head;
    NDR_record_t NDR;
    kern_return_t RetCode;
    int64_t result;
} add_reply_t;

/* On the wire `values` has as many elements as there are, and `scale` follows at once. */
typedef struct {
    mach_msg_header_t Head;
    NDR_record_t NDR;
    mach_msg_type_number_t valuesCnt;
    double values[16];
    uint32_t scale;
} mean_request_t;

typedef struct {
    mach_msg_header_t Head;
    NDR_record_t NDR;
    kern_return_t RetCode;
    double result;
} mean_reply_t;

typedef struct {
    mach_msg_header_t Head;
    NDR_record_t NDR;
    char name[32];
    mach_msg_type_number_t titleOffset;
    mach_msg_type_number_t titleCnt;
    char title[256];
    boolean_t loud;
} greet_request_t;

typedef struct {
    mach_msg_header_t Head;
    NDR_record_t NDR;
    kern_return_t RetCode;
    mach_msg_type_number_t textOffset;
    mach_msg_type_number_t textCnt;
    char text[256];
    int32_t length;
} greet_reply_t;

typedef struct {
    mach_msg_header_t Head;
    NDR_record_t NDR;
    point_t triangle[3];
    point_t by;
} move_request_t;

typedef struct {
    mach_msg_header_t Head;
    NDR_record_t NDR;
    kern_return_t RetCode;
    point_t result[3];
} move_reply_t;

typedef struct {
    mach_msg_header_t Head;
    mach_msg_body_t msgh_body;
    mach_msg_port_descriptor_t listener;
    NDR_record_t NDR;
    uint8_t first;
    char firstPad[3];
} join_request_t;

typedef struct {
    mach_msg_header_t Head;
    mach_msg_body_t msgh_body;
    mach_msg_port_descriptor_t listener;
    NDR_record_t NDR;
    uint8_t following;
    char followingPad[3];
} join_reply_t;

/* What is out of line lies elsewhere; here are its descriptors, and once more its counts. */
typedef struct {
    mach_msg_header_t Head;
    mach_msg_body_t msgh_body;
    mach_msg_ool_descriptor_t numbers;
    mach_msg_ool_ports_descriptor_t listeners;
    NDR_record_t NDR;
    mach_msg_type_number_t numbersCnt;
    mach_msg_type_number_t listenersCnt;
} sums_request_t, sums_reply_t;

typedef struct {
    mach_msg_header_t Head;
    NDR_record_t NDR;
    mach_msg_type_number_t textOffset;
    mach_msg_type_number_t textCnt;
    char text[256];
} note_request_t;

#pragma pack(pop)

typedef union {
    mach_msg_header_t Head;
    mig_reply_error_t error;
    add_request_t add;
    add_reply_t add_reply;
    mean_request_t mean;
    mean_reply_t mean_reply;
    greet_request_t greet;
    greet_reply_t greet_reply;
    move_request_t move;
    move_reply_t move_reply;
    join_request_t join;
    join_reply_t join_reply;
    sums_request_t sums;
    note_request_t note;
    struct {
        char space[sizeof(greet_request_t)];
        mach_msg_max_trailer_t trailer;
    } room;
} message_t;

#endif
