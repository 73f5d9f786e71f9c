/*-------------------------------------------------------------------------
 *
 * alive.c
 *	  The command that the tests of leaderctl run: it proves when it has run.
 *
 *	alive DIRECTORY [deaf] [fork] [daemon] [close] [exit]
 *
 * Each process of it keeps a file DIRECTORY/TOKEN.PID: a struct Record with the
 * machine's clock, stored every few milliseconds.  The file is mapped, so what
 * was stored is there however the process ended.
 *
 *	alive witness FILE
 *
 * One process on each processor that sleeps, and writes down when it has slept
 * for too long: "TIME LATE".  When the scheduler does not run these in time, it
 * need not have run who must kill in time, either.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* sched_setaffinity() */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define MS INT64_C(1000000)

/* between two signs of life */
#define NAP (5 * MS)

/* what has lost its tests ends by itself: seconds */
#define LIFE 600

/* Alive.pm reads it */
typedef struct Record
{
	int64_t		first;			/* nanoseconds of CLOCK_BOOTTIME */
	int64_t		last;
	int64_t		keeper;			/* the parent's pid; 0: not the keeper's child */
} Record;

static int64_t
now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * 1000 * MS + now.tv_nsec;
}

static void
nap(void)
{
	const struct timespec nap = {.tv_nsec = NAP};

	nanosleep(&nap, NULL);
}

/* A record of this process's own; the time is that before the file is there. */
static volatile Record *
begin(const char *directory, int64_t keeper)
{
	const char *token = getenv("LEADER_TOKEN");
	int64_t		began = now();
	volatile Record *record;
	char		path[512];
	int			fd;

	alarm(LIFE);
	snprintf(path, sizeof(path), "%s/%s.%d", directory,
			 token != NULL ? token : "none", (int) getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0666);
	if (fd < 0 || ftruncate(fd, sizeof(Record)) != 0)
		exit(99);
	record = mmap(NULL, sizeof(Record), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (record == MAP_FAILED)
		exit(99);
	close(fd);
	record->keeper = keeper;
	record->last = began;
	record->first = began;
	return record;
}

static void
live(volatile Record *record)
{
	for (;;)
	{
		nap();
		record->last = now();
	}
}

static void
witness(const char *path)
{
	FILE	   *file = fopen(path, "a");
	cpu_set_t	ours;
	pid_t		parent = getppid();
	int64_t		before;

	if (file == NULL || sched_getaffinity(0, sizeof(ours), &ours) != 0)
		exit(99);
	setvbuf(file, NULL, _IOLBF, 0);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
	{
		cpu_set_t	one;

		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (CPU_ISSET(cpu, &ours) && fork() == 0)
		{
			sched_setaffinity(0, sizeof(one), &one);
			break;
		}
	}
	/* the one that is left over watches, too, wherever it is run */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == 1 || parent == 1)
		exit(99);
	for (before = now();; before = now())
	{
		int64_t		late;

		nap();
		late = now() - before - NAP;
		if (late > 10 * MS)
			fprintf(file, "%.6f %.6f\n", now() / 1e9, late / 1e9);
	}
}

int
main(int argc, char **argv)
{
	bool		forks = false;
	bool		daemonizes = false;
	bool		exits = false;
	volatile Record *record;

	if (argc == 3 && strcmp(argv[1], "witness") == 0)
		witness(argv[2]);
	if (argc < 2)
		return 99;
	for (int i = 2; i < argc; i++)
	{
		forks |= strcmp(argv[i], "fork") == 0;
		daemonizes |= strcmp(argv[i], "daemon") == 0;
		exits |= strcmp(argv[i], "exit") == 0;
		if (strcmp(argv[i], "deaf") == 0)
			signal(SIGTERM, SIG_IGN);
		if (strcmp(argv[i], "close") == 0)
		{
			for (int fd = 0; fd < 1024; fd++)
				close(fd);
		}
	}

	record = begin(argv[1], getppid());
	if (forks && fork() == 0)
		live(begin(argv[1], 0));
	if (daemonizes && fork() == 0)
	{
		setsid();
		if (fork() != 0)
			_exit(0);
		live(begin(argv[1], 0));
	}
	if (exits)
		return 0;
	live(record);
}
