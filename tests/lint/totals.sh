#!/usr/bin/env bash
# totals.sh: the sum over all tests, on a log with everything that can happen to a test.
. "$(dirname "$0")/../check.sh"
here=$(cd "$(dirname "$0")" && pwd)
dots=.......................
cat >"$scratch/1.ctest" <<EOF
Test project /build
1: [  PASSED  ] 3 test(s).
1/9 Test  #1: one $dots   Passed    0.01 sec
2: [  PASSED  ] 1 test(s).
2: [  PASSED  ] 1 test(s).
2: [  FAILED  ] 2 test(s), listed below:
2: [  FAILED  ] test_x
2/9 Test  #2: two_ranks $dots***Failed    0.01 sec
3/9 Test  #3: crashed $dots***Exception: SegFault  0.01 sec
4: [  PASSED  ] 7 test(s).
4: [  SKIPPED ] 2 test(s), listed below:
4/9 Test  #4: leaked_at_exit $dots***Failed    0.01 sec
5/9 Test  #5: hung $dots***Timeout   1.01 sec
6/9 Test  #6: skipped $dots***Skipped   0.01 sec
7/9 Test  #7: reports_nothing $dots   Passed    0.01 sec
8/9 Test  #8: not_built $dots***Not Run   0.00 sec
10: 20 passed, 0 failed, 1 skipped
9/9 Test #10: script $dots   Passed    0.00 sec
20 passed, 0 failed, 1 skipped
EOF
printf 'noise\n5 passed, 1 failed, 1 skipped\n2 passed, 0 failed, 0 skipped\n' >"$scratch/direct.log"
totals=$here/../totals.sh
same "a log of ctest" "33 passed, 6 failed, 4 skipped" "$("$totals" "$scratch/1.ctest")"
same "a log of shell tests" "7 passed, 1 failed, 1 skipped" "$("$totals" "$scratch/direct.log")"
same "the sum of both" "40 passed, 7 failed, 5 skipped" "$("$totals" "$scratch/1.ctest" "$scratch/direct.log")"
same "nothing" "0 passed, 0 failed, 0 skipped" "$("$totals" /dev/null)"
same "what failed" "two_ranks crashed leaked_at_exit hung not_built" \
  "$("$totals" --failed "$scratch/1.ctest" | sed -n 's/.*#[0-9]*: \([a-z_]*\) .*/\1/p' | xargs)"
finish
