# SPDX-License-Identifier: GPL-2.0
# An Intel CPU with L1TF: a migration entry has no room for the accessed and the dirty bit.
--cpu max,la57=off,vendor=GenuineIntel,family=6,model=60,stepping=3
