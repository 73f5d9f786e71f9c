/*-------------------------------------------------------------------------
 *
 * output.c
 *	  Messages, as PostgreSQL's own programs write them: to stderr.
 *
 * Floor: ground.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* vasprintf() */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "leaderctl.h"

bool		quiet = false;

/*
 * A standard file that is closed would become the number of our connection, and
 * what is written to it the server's.  What is put there cannot be written.
 */
void
open_standard_files(void)
{
	int			fd;

	do
		fd = open("/dev/null", O_RDONLY);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/*
 * What a server says may have anybody's names in it, and a terminal obeys: no
 * control characters but ends of lines and tabs, neither those of ASCII nor the
 * others of Unicode.
 */
static void
disarm(char *text)
{
	for (unsigned char *c = (unsigned char *) text; *c != '\0'; c++)
	{
		if ((c[0] < 0x20 && c[0] != '\n' && c[0] != '\t') || c[0] == 0x7f)
			c[0] = '?';
		else if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
			c[0] = c[1] = '?';
	}
}

static void
message(const char *kind, const char *format, va_list args)
{
	char		text[2048];
	size_t		length;

	/* one write for one line, as several processes may share a log */
	vsnprintf(text, sizeof(text), format, args);
	length = strlen(text);
	while (length > 0 && text[length - 1] == '\n')
		text[--length] = '\0';
	disarm(text);
	fprintf(stderr, "%s: %s%s\n", PROGNAME, kind, text);
	fflush(stderr);
}

/* What happens; not with --quiet */
void
say(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	if (!quiet)
		message("", format, args);
	va_end(args);
}

/* Something that the server wants to be known */
void
warn(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	message("warning: ", format, args);
	va_end(args);
}

void
complain(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	message("error: ", format, args);
	va_end(args);
}

/*
 * Unless it is what has been said before, in *said, where it is kept.  The error
 * is in memory of its own.
 */
void
complain_anew(char *error, char **said)
{
	if (*said != NULL && strcmp(error, *said) == 0)
	{
		free(error);
		return;
	}
	complain("%s", error);
	free(*said);
	*said = error;
}

void
detail(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	message("detail: ", format, args);
	va_end(args);
}

void
hint(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	message("hint: ", format, args);
	va_end(args);
}

void
die(int status, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	message("error: ", format, args);
	va_end(args);
	exit(status);
}

/* A server's message; complain() says "error" itself. */
const char *
without_severity(const char *message)
{
	return strncmp(message, "ERROR:  ", 8) == 0 ? message + 8 : message;
}

/* In memory of its own; there is always enough of that for a line. */
char *
format_string(const char *format,...)
{
	va_list		args;
	char	   *text = NULL;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		die(EXIT_FAILED, "out of memory");
	va_end(args);
	return text;
}

/* All that was printed has been written, or the program ends. */
void
flush_output(void)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		die(EXIT_FAILED, "could not write to the standard output: %m");
}

/* A JSON string, or null; in memory of its own */
char *
json_text(const char *text)
{
	char	   *json;
	char	   *to;

	if (text == NULL)
		return format_string("null");
	json = malloc(6 * strlen(text) + 3);
	if (json == NULL)
		die(EXIT_FAILED, "out of memory");
	to = json;
	*to++ = '"';
	for (; *text != '\0'; text++)
	{
		if (*text == '"' || *text == '\\')
			*to++ = '\\';
		if ((unsigned char) *text < 0x20)
			to += sprintf(to, "\\u%04x", *text);
		else
			*to++ = *text;
	}
	strcpy(to, "\"");
	return json;
}
