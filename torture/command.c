/*
 * command.c
 *	  What leaderctl runs in scripts/torture and bench/failover: a process that
 *	  tells that it lives.
 *
 *		command LOG RUNS_MS ENDS_MS
 *
 * Ends by itself after RUNS_MS (0: never), and ENDS_MS after SIGTERM (-1: not at
 * all).  A line of the log is one write(2); times are microseconds of
 * CLOCK_MONOTONIC_RAW.
 *
 *		L time pid lock token instance	begins, with what leaderctl tells it
 *		H time pid						has run at this time
 *		T time pid						has been told to end
 *		Q time pid						ends
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define MS INT64_C(1000)
#define STAMP_EVERY (2 * MS)
#define NEVER INT64_MAX

static volatile sig_atomic_t told = 0;

static void
on_term(int signal)
{
	(void) signal;
	told = 1;
}

int
main(int argc, char **argv)
{
	const char *lock = getenv("LEADER_LOCK");
	const char *token = getenv("LEADER_TOKEN");
	const char *instance = getenv("LEADER_INSTANCE");
	const struct timespec pause = {.tv_nsec = STAMP_EVERY * 1000};
	int			pid = (int) getpid();
	int64_t		begun = now();
	int64_t		ends_at = NEVER;
	int			is_ending = 0;

	if (argc != 4 || lock == NULL || token == NULL || instance == NULL)
	{
		fprintf(stderr, "usage: command LOG RUNS_MS ENDS_MS, by leaderctl\n");
		return 2;
	}
	log_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (log_fd < 0)
	{
		perror(argv[1]);
		return 1;
	}
	signal(SIGTERM, on_term);
	note("L %" PRId64 " %d %s %s %s", begun, pid, lock, token, instance);
	if (atoi(argv[2]) > 0)
		ends_at = begun + atoi(argv[2]) * MS;

	for (;;)
	{
		int64_t		time = now();

		if (told && !is_ending)
		{
			is_ending = 1;
			note("T %" PRId64 " %d", time, pid);
			if (atoi(argv[3]) >= 0)
				ends_at = time + atoi(argv[3]) * MS;
		}
		if (time >= ends_at)
			break;
		note("H %" PRId64 " %d", time, pid);
		nanosleep(&pause, NULL);
	}
	note("Q %" PRId64 " %d", now(), pid);
	return 0;
}
