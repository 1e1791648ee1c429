/* A disk of a fixed speed: fsync and fdatasync sleep, and write nothing. Preloaded by disks.py. */

#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

static _Thread_local int exact;

static int nap(void)
{
    const char *told = getenv("LEDGER_BENCH_FSYNC_US");
    long us = told ? atol(told) : 0;
    struct timespec left = { us / 1000000, us % 1000000 * 1000 };
    if (!exact) {
        prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); /* else a nap takes 50 us more */
        exact = 1;
    }
    while (nanosleep(&left, &left) != 0) {
    }
    return 0;
}

int fsync(int file)
{
    (void)file;
    return nap();
}

int fdatasync(int file)
{
    (void)file;
    return nap();
}
