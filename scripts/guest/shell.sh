#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's side of `make shell`: modules loaded, then a prompt.

. "$(dirname "$0")/lib.sh"

load_modules "$MMOPS_MODULES" || echo "the modules could not be loaded, see dmesg" >&2
load_file_systems "$MMOPS_KERNEL" || echo "no XFS, FUSE" >&2
PATH=$MMOPS_BIN:$PATH
setup_dax >/dev/null 2>&1 || echo "no device-DAX" >&2
cat <<EOF

mmops guest: $(uname -r), $(nproc) CPUs. The root file system is the host's, read-only;
$MMOPS_SHARE is shared read-write. exit or Ctrl-D ends the guest.
Try: mmopsctl info; lsmod; ls /sys/kernel/debug

EOF
exec /bin/bash -i
