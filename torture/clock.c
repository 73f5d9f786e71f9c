/*
 * clock.c
 *	  Clocks that somebody disciplines: preloaded into servers and clients.
 *
 * Adds an offset to every reading of the wall clock, and lets CLOCK_MONOTONIC
 * and CLOCK_BOOTTIME run at another rate than CLOCK_MONOTONIC_RAW, which is
 * left alone.  Offset and rate are words of a mapped file.  It must be safe in
 * signal handlers, because PostgreSQL's reads the time there; that is why this
 * is not libfaketime, which opens and parses a file for each reading.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS INT64_C(1000000000)

/*
 * From that time of CLOCK_MONOTONIC_RAW on the clock has shown this, and runs
 * at this rate.  A change is written into the segment that does not count any
 * more, and begins in the future, so that no reader sees half of it.
 */
typedef struct Segment
{
	int64_t		since;			/* ns */
	int64_t		shown;			/* ns */
	int64_t		rate;			/* millionths */
} Segment;

typedef struct Clocks
{
	int64_t		offset;			/* of the wall clock, s */
	Segment		segments[2];
} Clocks;

static const volatile Clocks *clocks = NULL;
static int	(*real_clock_gettime) (clockid_t, struct timespec *);

__attribute__((constructor))
static void
set_up(void)
{
	const char *file = getenv("TORTURE_CLOCK");
	int			fd;
	void	   *map;

	real_clock_gettime = (int (*) (clockid_t, struct timespec *))
		dlsym(RTLD_NEXT, "clock_gettime");
	if (file == NULL)
		return;
	fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		abort();
	map = mmap(NULL, sizeof(Clocks), PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		abort();
	close(fd);
	clocks = map;
}

static void
slewed(struct timespec *ts)
{
	int64_t		raw;
	int64_t		shown;
	const volatile Segment *segment = &clocks->segments[0];
	const volatile Segment *other = &clocks->segments[1];

	real_clock_gettime(CLOCK_MONOTONIC_RAW, ts);
	raw = ts->tv_sec * NS + ts->tv_nsec;
	if (segment->since > raw ||
		(other->since <= raw && other->since > segment->since))
		segment = other;
	shown = segment->shown +
		(int64_t) ((__int128) (raw - segment->since) * segment->rate / 1000000);
	ts->tv_sec = shown / NS;
	ts->tv_nsec = shown % NS;
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	int			result;

	if (real_clock_gettime == NULL)
		set_up();				/* another library's constructor came first */
	result = real_clock_gettime(id, ts);
	if (result != 0 || clocks == NULL)
		return result;
	if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)
		ts->tv_sec += clocks->offset;
	else if (id == CLOCK_MONOTONIC || id == CLOCK_BOOTTIME)
		slewed(ts);
	return 0;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec ts;

	(void) tz;
	if (clock_gettime(CLOCK_REALTIME, &ts) != 0)
		return -1;
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *t)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (t != NULL)
		*t = ts.tv_sec;
	return ts.tv_sec;
}
