# For scripts to source that add to the records which the repository keeps of long runs: where a result comes from.

# The commit, marked where anything but such records differs from it.
measured_commit() {
    local commit
    commit=$(git rev-parse --short=10 HEAD)
    git diff --quiet HEAD -- ':(exclude)*/results*' ':(exclude)tests/load/valgrind.json' || commit+=-dirty
    printf '%s' "$commit"
}

# The processor's name.
processor() {
    sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1
}
