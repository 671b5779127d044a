# What a lock has beyond others: `awk -f without_locks.awk OTHER.lock … LOCK.lock`. A package of the
# last lock is left out, with its hashes, where one of the others has it under the same marker.
/^[^ ]/ { if (FILENAME != ARGV[ARGC - 1]) { there[$0] = 1; next } left_out = $0 in there }
FILENAME == ARGV[ARGC - 1] && !left_out
