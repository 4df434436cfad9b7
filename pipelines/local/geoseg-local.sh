#!/usr/bin/env bash
# One machine, unattended: several workers, and another attempt after a failure that may pass (network, bucket, memory).
#
#   geoseg-local.sh SCENE... --out OUT [any option of `geoseg run`]
#
# The same command continues a run that was stopped for any reason. It can be used in cron: it needs no terminal, and if
# the same command is already running, a second one exits at once.

set -euo pipefail

# --- Change these, here or as `WORKERS=8 geoseg-local.sh ...` ----------------------------------------------------------
GEOSEG=${GEOSEG:-geoseg}    # in cron, where no virtual environment is active: /path/to/environment/bin/geoseg
THREADS=${THREADS:-2}       # per worker
WORKERS=${WORKERS:-}        # by default as many as cores and memory allow
WORKER_MB=${WORKER_MB:-3000}  # memory per worker: twice what a worker with two threads needs
ATTEMPTS=${ATTEMPTS:-5}
PAUSE_S=${PAUSE_S:-60}      # between attempts

[ "$#" -gt 0 ] || { echo "usage: geoseg-local.sh SCENE... --out OUT [options of geoseg run]" >&2; exit 2; }

how_many_workers() {
  local by_cores=$(($(nproc) / THREADS)) by_memory
  by_memory=$(awk -v each="$WORKER_MB" '/^MemAvailable/ { print int($2 / 1024 / each) }' /proc/meminfo)
  local fewest=$((by_cores < by_memory ? by_cores : by_memory))
  echo $((fewest > 0 ? fewest : 1))
}

# The lock is held while this process lives, so nothing has to be cleaned up after a crash.
locks=${XDG_CACHE_HOME:-$HOME/.cache}/geoseg
mkdir -p "$locks"
exec 9>"$locks/local-$(printf '%s\0' "$PWD" "$@" | cksum | cut -d ' ' -f 1).lock"
flock --nonblock 9 || { echo "This command runs already." >&2; exit 0; }

# If this script is stopped, stop geoseg too and make no further attempt.
geoseg_pid=''
stop() { trap '' INT TERM; [ -z "$geoseg_pid" ] || kill "$geoseg_pid" 2>/dev/null || true; wait; exit 143; }
trap stop INT TERM

workers=${WORKERS:-$(how_many_workers)}
for attempt in $(seq "$ATTEMPTS"); do
  nice -n 10 "$GEOSEG" run "$@" --workers "$workers" --threads "$THREADS" 9>&- &
  geoseg_pid=$!
  code=0
  wait "$geoseg_pid" || code=$?
  case $code in
    0) exit 0 ;;
    2) exit 2 ;;  # input refused: another attempt would give the same error
  esac
  [ "$attempt" -lt "$ATTEMPTS" ] || break
  echo "Attempt $attempt of $ATTEMPTS ended with exit code $code; the next one in $PAUSE_S s continues." >&2
  sleep "$PAUSE_S" 9>&- &
  wait $! || true
done
exit "$code"  # 3: some blocks or scenes failed; `geoseg status OUT` lists them
