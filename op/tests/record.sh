# For `sanitize` and `miri` to source: what they keep in results.md.
source tests/provenance.sh

# recorded TOOL COMMAND…: runs the tests, and where all of them pass adds a line of how many they were.
recorded() {
    local tool=$1 log start=$SECONDS commit passed
    shift
    commit=$(measured_commit)
    log=$(mktemp)
    "$@" 2>&1 | tee "$log"
    passed=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' "$log" | awk '{ sum += $1 } END { print sum }')
    rm "$log"
    printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$(date -u +%F)" "$commit" "$tool" "$(rustc +nightly --version)" "$(processor)" \
        "$passed" $((SECONDS - start)) >>op/tests/results.md
}
