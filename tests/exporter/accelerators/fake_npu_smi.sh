#!/bin/sh
# A stand-in for `npu-smi` that replays recordings of it. The query `info -t usages -i 0` is
# answered from the file `info_-t_usages_-i_0.txt` in the folder $NPU_SMI_RECORDING, and refused in
# the tool's own words (recordings/npu_smi/310B_25.2.0_queries) when there is none. Beside it,
# `….status` holds an exit status, and `….wait` seconds to wait. Every query is appended to the
# file `queries` there.
query=$(IFS=_; echo "$*")
file="$NPU_SMI_RECORDING/$query"
echo "$*" >> "$NPU_SMI_RECORDING/queries"
[ -f "$file.wait" ] && sleep "$(cat "$file.wait")"
if [ ! -f "$file.txt" ]; then
    echo "This device does not support querying ${3:-this}."
    exit 1
fi
cat "$file.txt"
[ -f "$file.status" ] && exit "$(cat "$file.status")"
exit 0
