/*
 * clock.c
 *	  A system clock that can be stepped: preloaded into the servers.
 *
 * Adds an offset, which is a word of a mapped file, to every reading of the
 * wall clock, and leaves all other clocks alone.  It must be safe in signal
 * handlers, because PostgreSQL's reads the time there; that is why this is
 * not libfaketime, which opens and parses a file for each reading.
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

static const int64_t zero = 0;
static const volatile int64_t *offset_s = &zero;	/* seconds */
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
	map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		abort();
	close(fd);
	offset_s = map;
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	int			result;

	if (real_clock_gettime == NULL)
		set_up();				/* another library's constructor came first */
	result = real_clock_gettime(id, ts);
	if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		ts->tv_sec += *offset_s;
	return result;
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
