#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Runs a preprocessor and takes the line numbers out of its line markers (file names stay), so that ccache finds an
# object again when a header's lines merely moved. Lines that the code itself uses (__LINE__) are in the text by then.
set -o pipefail
"$@" | sed -E 's/^# [0-9]+ "/# 1 "/'
