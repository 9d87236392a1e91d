#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# with-modules.sh COMMAND...: load the modules of MMOPS_MODULES, then run the command.

. "$(dirname "$0")/lib.sh"

load_modules "$MMOPS_MODULES" || exit 1
exec "$@"
