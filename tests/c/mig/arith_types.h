/* What a .defs file imports: the types of the arguments. */
#ifndef ARITH_TYPES_H
#define ARITH_TYPES_H

typedef int *values_t;
typedef char text_t[128];

#endif
