# SPDX-License-Identifier: GPL-2.0
# Two nodes, with two CPUs each. The second has the memory above 9.5 GiB.
--numa 8G,cpus=0-1
--numa 2G,cpus=2-3
