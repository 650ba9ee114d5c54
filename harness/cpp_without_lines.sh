#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Runs a preprocessor and takes out of its text what only tells where a line stood: blank lines, markers within a file,
# and the numbers of the markers at which a file begins and ends. So ccache finds an object again when a header's
# lines merely moved. Line numbers that the code itself uses (__LINE__) are in the text by then, and count.
set -o pipefail
"$@" | sed -E -e '/^[[:space:]]*$/d' -e '/^# [0-9]+ "[^"]*"$/d' -e 's/^# [0-9]+ "/# 1 "/'
