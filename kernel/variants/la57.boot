# SPDX-License-Identifier: GPL-2.0
# Page tables of five levels.
--cpu max
