#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Runs a preprocessor and takes out of its text what only tells where a line stood: blank lines, markers within a file,
# and the numbers of the markers at which a file begins and ends. So ccache finds an object again when a header's
# lines merely moved. Line numbers that the code itself uses (__LINE__) are in the text by then, and count.
# The text is in the file after -o (ccache 4.7) or on standard output.
set -o pipefail
filter=(sed -E -e '/^[[:space:]]*$/d' -e '/^# [0-9]+ "[^"]*"$/d' -e 's/^# [0-9]+ "/# 1 "/')
output=
for ((i = 1; i < $#; i++)); do
	if [[ ${!i} == -o ]]; then
		next=$((i + 1))
		output=${!next}
	fi
done
if [[ -z $output ]]; then
	"$@" | "${filter[@]}"
	exit
fi
"$@" || exit
"${filter[@]}" -i -- "$output"
