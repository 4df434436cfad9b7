#!/usr/bin/env bash
# One machine, unattended: several workers, and again after what passes by itself (a network, a bucket, lack of memory).
#
#   geoseg-local.sh SCENE... --out OUT [any option of `geoseg run`]
#
# The same command continues where it was stopped, by anything. Safe in cron: a second one of the same command leaves at
# once, and nothing here needs a terminal.

set -euo pipefail

# --- Change these, here or as `WORKERS=8 geoseg-local.sh ...` ----------------------------------------------------------
GEOSEG=${GEOSEG:-geoseg}    # cron knows no virtual environment: /path/to/environment/bin/geoseg
THREADS=${THREADS:-2}       # of a worker
WORKERS=${WORKERS:-}        # as many as cores and memory allow
WORKER_MB=${WORKER_MB:-3000}  # memory that a worker may need: twice what one of two threads takes
ATTEMPTS=${ATTEMPTS:-5}
PAUSE_S=${PAUSE_S:-60}      # between attempts

[ "$#" -gt 0 ] || { echo "usage: geoseg-local.sh SCENE... --out OUT [options of geoseg run]" >&2; exit 2; }

how_many_workers() {
  local by_cores=$(($(nproc) / THREADS)) by_memory
  by_memory=$(awk -v each="$WORKER_MB" '/^MemAvailable/ { print int($2 / 1024 / each) }' /proc/meminfo)
  local fewest=$((by_cores < by_memory ? by_cores : by_memory))
  echo $((fewest > 0 ? fewest : 1))
}

# The lock is held as long as this process lives; nothing is left to clean up after a crash.
locks=${XDG_CACHE_HOME:-$HOME/.cache}/geoseg
mkdir -p "$locks"
exec 9>"$locks/local-$(printf '%s\0' "$PWD" "$@" | cksum | cut -d ' ' -f 1).lock"
flock --nonblock 9 || { echo "This command runs already." >&2; exit 0; }

# Stopped from outside: geoseg too, and no further attempt.
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
    2) exit 2 ;;  # input refused: again would say the same
  esac
  [ "$attempt" -lt "$ATTEMPTS" ] || break
  echo "Attempt $attempt of $ATTEMPTS ended with exit code $code; the next one in $PAUSE_S s continues." >&2
  sleep "$PAUSE_S" 9>&- &
  wait $! || true
done
exit "$code"  # 3: some blocks or scenes failed; `geoseg status OUT` lists them
