/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's harness, with more time for a test than the 30 s that it gives one by itself:
 * a busy machine that emulates a debug kernel is slow, and no test is about time.
 */
#include_next <kselftest_harness.h>

#include "mmops_selftest.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	TEST_SECONDS
