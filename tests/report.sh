# Functions for the shell scripts that run tests. Source this file after setting `bin`, a directory for the output.
# The script prints one line for each test, and ends with `finish`, whose line `N passed, N failed` scripts/run_tests.py
# reads.
passed=0 failed=0

# run NAME COMMAND...: runs a test and prints one line. If the command fails, also prints its output. Exit status 77
# means that the test cannot run here; the last line of its output states the reason.
run() {
    local name=$1 start=$SECONDS
    shift
    local status=0
    "$@" >"$bin/log" 2>&1 || status=$?
    if [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
        printf 'ok      %-42s %3d s  %s\n' "$name" $((SECONDS - start)) "$(grep -a 'checks,' "$bin/log" | tail -n 1)"
        grep -a '^skipped: ' "$bin/log" || true
    elif [ "$status" -eq 77 ]; then
        echo "skipped: $name: $(tail -n 1 "$bin/log")"
    else
        failed=$((failed + 1))
        printf 'FAILED  %s\n' "$name"
        tail -n 60 "$bin/log" | sed 's/^/        /'
    fi
}

# holds DESCRIPTION COMMAND...: prints the description and fails if the command fails.
holds() {
    local description=$1
    shift
    "$@" || { echo "does not hold: $description"; return 1; }
}

# Prints the numbers of tests. Fails if one failed.
finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
