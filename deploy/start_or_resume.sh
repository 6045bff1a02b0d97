#!/usr/bin/env bash
# Starts the sweep NAME, or goes on with it where runs/NAME is there already. What a scheduler may start again and again.
#
#   deploy/start_or_resume.sh NAME [FLAG ...] [-- FLAG ...]
#   deploy/start_or_resume.sh mine --space mine.yaml --data /shared/images -- --address auto
#
# The flags before `--` are for a new sweep alone, those after it for a resumed one as well (see launch.py --help). The
# folder that it is called in gets runs/. The exit status is launch.py's: 0 done, 1 gave up, 2 wrong request,
# 130 interrupted and to be started again.
set -euo pipefail

if (($# == 0)) || [[ $1 == -* ]]; then
    printf '%s\n' "usage: start_or_resume.sh NAME [FLAG ...] [-- FLAG ...]" >&2
    exit 2
fi
launch="$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")/sweeps/launch.py"
name=$1
shift
new=()
while (($# > 0)); do
    if [[ $1 == -- ]]; then
        shift
        break
    fi
    new+=("$1")
    shift
done
if [[ -e runs/$name/journal.jsonl ]]; then
    exec python "$launch" --resume "$name" "$@"
fi
exec python "$launch" --name "$name" "${new[@]}" "$@"
