// SPDX-License-Identifier: GPL-2.0-only
/* Entries for vmx/hyperv.c. */
#include "vmcs_table.h"
#include "vmx/hyperv.c"
#include "oracle.h"
