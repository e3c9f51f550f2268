#ifndef	_arith_user_
#define	_arith_user_

/* Module arith */

#include <string.h>
#include <mach/ndr.h>
#include <mach/boolean.h>
#include <mach/kern_return.h>
#include <mach/notify.h>
#include <mach/mach_types.h>
#include <mach/message.h>
#include <mach/mig_errors.h>
#include <mach/port.h>

/* BEGIN VOUCHER CODE */

#ifndef KERNEL
#if defined(__has_include)
#if __has_include(<mach/mig_voucher_support.h>)
#ifndef USING_VOUCHERS
#define USING_VOUCHERS
#endif
#ifndef __VOUCHER_FORWARD_TYPE_DECLS__
#define __VOUCHER_FORWARD_TYPE_DECLS__
#ifdef __cplusplus
extern "C" {
#endif
	extern boolean_t voucher_mach_msg_set(mach_msg_header_t *msg) __attribute__((weak_import));
#ifdef __cplusplus
}
#endif
#endif // __VOUCHER_FORWARD_TYPE_DECLS__
#endif // __has_include(<mach/mach_voucher_types.h>)
#endif // __has_include
#endif // !KERNEL

/* END VOUCHER CODE */


/* BEGIN MIG_STRNCPY_ZEROFILL CODE */

#if defined(__has_include)
#if __has_include(<mach/mig_strncpy_zerofill_support.h>)
#ifndef USING_MIG_STRNCPY_ZEROFILL
#define USING_MIG_STRNCPY_ZEROFILL
#endif
#ifndef __MIG_STRNCPY_ZEROFILL_FORWARD_TYPE_DECLS__
#define __MIG_STRNCPY_ZEROFILL_FORWARD_TYPE_DECLS__
#ifdef __cplusplus
extern "C" {
#endif
	extern int mig_strncpy_zerofill(char *dest, const char *src, int len) __attribute__((weak_import));
#ifdef __cplusplus
}
#endif
#endif /* __MIG_STRNCPY_ZEROFILL_FORWARD_TYPE_DECLS__ */
#endif /* __has_include(<mach/mig_strncpy_zerofill_support.h>) */
#endif /* __has_include */

/* END MIG_STRNCPY_ZEROFILL CODE */


#ifdef AUTOTEST
#ifndef FUNCTION_PTR_T
#define FUNCTION_PTR_T
typedef void (*function_ptr_t)(mach_port_t, char *, mach_msg_type_number_t);
typedef struct {
        char            *name;
        function_ptr_t  function;
} function_table_entry;
typedef function_table_entry 	*function_table_t;
#endif /* FUNCTION_PTR_T */
#endif /* AUTOTEST */

#ifndef	arith_MSG_COUNT
#define	arith_MSG_COUNT	4
#endif	/* arith_MSG_COUNT */

#include <mach/std_types.h>
#include <mach/mig.h>
#include "arith_types.h"

#ifdef __BeforeMigUserHeader
__BeforeMigUserHeader
#endif /* __BeforeMigUserHeader */

#include <sys/cdefs.h>
__BEGIN_DECLS


/* Routine add */
#ifdef	mig_external
mig_external
#else
extern
#endif	/* mig_external */
kern_return_t add
(
	mach_port_t server,
	int a,
	int b,
	int *sum
);

/* Routine mean */
#ifdef	mig_external
mig_external
#else
extern
#endif	/* mig_external */
kern_return_t mean
(
	mach_port_t server,
	values_t values,
	mach_msg_type_number_t valuesCnt,
	values_t weights,
	mach_msg_type_number_t weightsCnt,
	int *mean
);

/* Routine keep */
#ifdef	mig_external
mig_external
#else
extern
#endif	/* mig_external */
kern_return_t keep
(
	mach_port_t server,
	vm_offset_t data,
	mach_msg_type_number_t dataCnt,
	mach_port_t back,
	mach_msg_type_name_t backPoly,
	vm_offset_t *twice,
	mach_msg_type_number_t *twiceCnt
);

/* SimpleRoutine note */
#ifdef	mig_external
mig_external
#else
extern
#endif	/* mig_external */
kern_return_t note
(
	mach_port_t server,
	text_t text
);

__END_DECLS

/* typedefs for all requests */

#ifndef __Request__arith_subsystem__defined
#define __Request__arith_subsystem__defined

#ifdef  __MigPackStructs
#pragma pack(push, 4)
#endif
	typedef struct {
		mach_msg_header_t Head;
		NDR_record_t NDR;
		int a;
		int b;
	} __Request__add_t __attribute__((unused));
#ifdef  __MigPackStructs
#pragma pack(pop)
#endif

#ifdef  __MigPackStructs
#pragma pack(push, 4)
#endif
	typedef struct {
		mach_msg_header_t Head;
		NDR_record_t NDR;
		mach_msg_type_number_t valuesCnt;
		int values[16];
		mach_msg_type_number_t weightsCnt;
		int weights[16];
	} __Request__mean_t __attribute__((unused));
#ifdef  __MigPackStructs
#pragma pack(pop)
#endif

#ifdef  __MigPackStructs
#pragma pack(push, 4)
#endif
	typedef struct {
		mach_msg_header_t Head;
		/* start of the kernel processed data */
		mach_msg_body_t msgh_body;
		mach_msg_ool_descriptor_t data;
		mach_msg_port_descriptor_t back;
		/* end of the kernel processed data */
		NDR_record_t NDR;
		mach_msg_type_number_t dataCnt;
	} __Request__keep_t __attribute__((unused));
#ifdef  __MigPackStructs
#pragma pack(pop)
#endif

#ifdef  __MigPackStructs
#pragma pack(push, 4)
#endif
	typedef struct {
		mach_msg_header_t Head;
		NDR_record_t NDR;
		mach_msg_type_number_t textOffset; /* MiG doesn't use it */
		mach_msg_type_number_t textCnt;
		char text[128];
	} __Request__note_t __attribute__((unused));
#ifdef  __MigPackStructs
#pragma pack(pop)
#endif

#endif /* !__Request__arith_subsystem__defined */

/* union of all requests */

#ifndef __RequestUnion__arith_subsystem__defined
#define __RequestUnion__arith_subsystem__defined
union __RequestUnion__arith_subsystem {
	__Request__add_t Request_add;
	__Request__mean_t Request_mean;
	__Request__keep_t Request_keep;
	__Request__note_t Request_note;
};
#endif /* !__RequestUnion__arith_subsystem__defined */

/* typedefs for all replies */

#ifndef __Reply__arith_subsystem__defined
#define __Reply__arith_subsystem__defined

#ifdef  __MigPackStructs
#pragma pack(push, 4)
#endif
	typedef struct {
		mach_msg_header_t Head;
		NDR_record_t NDR;
		kern_return_t RetCode;
		int sum;
	} __Reply__add_t __attribute__((unused));
#ifdef  __MigPackStructs
#pragma pack(pop)
#endif

#ifdef  __MigPackStructs
#pragma pack(push, 4)
#endif
	typedef struct {
		mach_msg_header_t Head;
		NDR_record_t NDR;
		kern_return_t RetCode;
		int mean;
	} __Reply__mean_t __attribute__((unused));
#ifdef  __MigPackStructs
#pragma pack(pop)
#endif

#ifdef  __MigPackStructs
#pragma pack(push, 4)
#endif
	typedef struct {
		mach_msg_header_t Head;
		/* start of the kernel processed data */
		mach_msg_body_t msgh_body;
		mach_msg_ool_descriptor_t twice;
		/* end of the kernel processed data */
		NDR_record_t NDR;
		mach_msg_type_number_t twiceCnt;
	} __Reply__keep_t __attribute__((unused));
#ifdef  __MigPackStructs
#pragma pack(pop)
#endif

#ifdef  __MigPackStructs
#pragma pack(push, 4)
#endif
	typedef struct {
		mach_msg_header_t Head;
		NDR_record_t NDR;
		kern_return_t RetCode;
	} __Reply__note_t __attribute__((unused));
#ifdef  __MigPackStructs
#pragma pack(pop)
#endif

#endif /* !__Reply__arith_subsystem__defined */

/* union of all replies */

#ifndef __ReplyUnion__arith_subsystem__defined
#define __ReplyUnion__arith_subsystem__defined
union __ReplyUnion__arith_subsystem {
	__Reply__add_t Reply_add;
	__Reply__mean_t Reply_mean;
	__Reply__keep_t Reply_keep;
	__Reply__note_t Reply_note;
};
#endif /* !__ReplyUnion__arith_subsystem__defined */

#ifndef subsystem_to_name_map_arith
#define subsystem_to_name_map_arith \
    { "add", 500 },\
    { "mean", 501 },\
    { "keep", 502 },\
    { "note", 503 }
#endif

#ifdef __AfterMigUserHeader
__AfterMigUserHeader
#endif /* __AfterMigUserHeader */

#endif	 /* _arith_user_ */
