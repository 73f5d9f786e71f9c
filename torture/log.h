/*
 * What a process of the torture writes to its log: a line in one write, with
 * times in microseconds that nobody disciplines.
 */
#ifndef TORTURE_LOG_H
#define TORTURE_LOG_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int	log_fd = -1;

static inline int64_t
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

__attribute__((format(printf, 1, 2)))
static inline void
note(const char *format,...)
{
	char		line[512];
	va_list		args;
	int			length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	line[length++] = '\n';
	if (write(log_fd, line, length) != length)
	{
		perror("write");
		abort();
	}
}

#endif							/* TORTURE_LOG_H */
