/*
 * witness.c
 *	  Tells when a processor has been given to nobody who waited for it: a
 *	  machine that stalls, as a virtual one may or one that is overloaded.
 *
 *		witness LOG N
 *
 * Sleeps 1 ms at a time on the Nth processor that it may use.  One line of the
 * log is one write(2), in microseconds of CLOCK_MONOTONIC_RAW:
 *
 *		G from to		it slept, or waited to go on, all the time
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define MS INT64_C(1000)
#define LATE (10 * MS)

static void
stay_on(int n)
{
	cpu_set_t	allowed;
	cpu_set_t	one;
	int			cpu = -1;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 ||
		n >= CPU_COUNT(&allowed))
		exit(2);
	while (n >= 0)
	{
		if (CPU_ISSET(++cpu, &allowed))
			n--;
	}
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one) != 0)
		exit(2);
}

int
main(int argc, char **argv)
{
	const struct timespec pause = {.tv_nsec = MS * 1000};
	int64_t		last;
	int			log_fd;

	if (argc != 3)
	{
		fprintf(stderr, "usage: witness LOG N\n");
		return 2;
	}
	log_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (log_fd < 0)
	{
		perror(argv[1]);
		return 1;
	}
	stay_on(atoi(argv[2]));
	last = now();
	for (;;)
	{
		int64_t		time;

		nanosleep(&pause, NULL);
		time = now();
		if (time - last > LATE &&
			dprintf(log_fd, "G %" PRId64 " %" PRId64 "\n", last, time) < 0)
			return 1;
		last = time;
	}
}
