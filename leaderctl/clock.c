/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  Time that does not stop while the machine sleeps.
 *
 * Floor: ground.
 *
 *-------------------------------------------------------------------------
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "leaderctl.h"

Time
clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * SECOND + now.tv_nsec;
}

/* How many milliseconds poll() may sleep until then; -1: for ever */
int
clock_timeout(Time until)
{
	Time		left;

	if (until == NEVER)
		return -1;
	left = until - clock_now();
	if (left <= 0)
		return 0;
	left = (left + MS - 1) / MS;
	return left > INT_MAX ? INT_MAX : (int) left;
}

static const struct
{
	const char *name;
	Time		length;
}			units[] = {
	{"ms", MS}, {"s", SECOND}, {"min", 60 * SECOND}, {"m", 60 * SECOND},
	{"h", 3600 * SECOND}, {"d", 86400 * SECOND}
};

#define N_UNITS (sizeof(units) / sizeof(units[0]))

/* "10s", "500ms", "1.5h"; a number needs its unit, or 10 would be a guess. */
bool
duration_parse(const char *text, Time *duration)
{
	char	   *end;
	double		number = strtod(text, &end);

	if (end == text || strspn(text, "0123456789.") != (size_t) (end - text))
		return false;
	for (size_t i = 0; i < N_UNITS; i++)
	{
		if (strcmp(end, units[i].name) == 0 &&
			number * units[i].length <= 400.0 * 86400 * SECOND)
		{
			*duration = (Time) (number * units[i].length);
			return true;
		}
	}
	return false;
}

/* The same in the largest unit that says it exactly; static memory. */
const char *
duration_text(Time duration)
{
	static char text[4][32];
	static int	next = 0;
	char	   *to = text[next++ % 4];

	if (duration == 0)
		return "0s";
	for (int i = N_UNITS - 1; i >= 0; i--)
	{
		if (strcmp(units[i].name, "m") != 0 && duration % units[i].length == 0)
		{
			snprintf(to, sizeof(text[0]), "%lld%s",
					 (long long) (duration / units[i].length), units[i].name);
			return to;
		}
	}
	snprintf(to, sizeof(text[0]), "%.1fms", (double) duration / MS);
	return to;
}
