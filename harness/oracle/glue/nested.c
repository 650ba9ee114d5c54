// SPDX-License-Identifier: GPL-2.0-only
/* Entries for vmx/nested.c. */
#include "vmcs_table.h"
#include "vmx/nested.c"
#include "oracle.h"
