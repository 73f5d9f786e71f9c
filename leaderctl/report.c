/*-------------------------------------------------------------------------
 *
 * report.c
 *	  Tells who leads: a status file, systemd.
 *
 * The file is replaced by rename, so a reader sees all of one state.  When this
 * process has died the file still says until when it has led, and a reader who
 * looks at that is never told a leader who is none.  Nothing here may fail a term:
 * a file that cannot be written is complained of.
 *
 * Floor: parts.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* SOCK_CLOEXEC */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "leaderctl.h"

static const char *path = NULL; /* NULL: no file */
static char *new_path;
static char *last_state = NULL; /* what has been told */
static bool has_complained = false;

static int	systemd = -1;		/* its socket; -1: there is none */
static char *last_status = NULL;

/* ---------------------------------------------------------------------
 * systemd: one datagram, as sd_notify() sends it
 * ---------------------------------------------------------------------
 */

static void
open_systemd(void)
{
	const char *name = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t		length = name != NULL ? strlen(name) : 0;

	if (length > 1 && length < sizeof(address.sun_path) &&
		(name[0] == '/' || name[0] == '@'))
	{
		memcpy(address.sun_path, name, length);
		if (name[0] == '@')
			address.sun_path[0] = '\0';
		systemd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (systemd >= 0 &&
			connect(systemd, (struct sockaddr *) &address,
					offsetof(struct sockaddr_un, sun_path) + length) != 0)
		{
			complain("could not connect to NOTIFY_SOCKET \"%s\": %s", name, strerror(errno));
			close(systemd);
			systemd = -1;
		}
	}
	unsetenv("NOTIFY_SOCKET");	/* it is not the command's */
}

static void
tell_systemd(const char *text)
{
	if (systemd >= 0)
		(void) !send(systemd, text, strlen(text), MSG_NOSIGNAL);
}

/* ---------------------------------------------------------------------
 * The file
 * ---------------------------------------------------------------------
 */

/* False, with errno: the file is as it was. */
static bool
write_file(const char *text)
{
	int			fd;
	FILE	   *file;
	bool		is_written;

	/* a new one, and no link that somebody has put there */
	unlink(new_path);
	fd = open(new_path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	file = fd >= 0 ? fdopen(fd, "w") : NULL;

	if (file == NULL)
		return false;
	is_written = fputs(text, file) >= 0;
	if (fclose(file) != 0 || !is_written || rename(new_path, path) != 0)
	{
		int			save_errno = errno;

		unlink(new_path);
		errno = save_errno;
		return false;
	}
	return true;
}

/* ISO 8601, UTC, of a time by our clock, in wall time as it is now */
static char *
wall_time(Time at)
{
	struct timespec now;
	struct tm	utc;
	Time		wall;
	time_t		seconds;
	char		text[32];

	clock_gettime(CLOCK_REALTIME, &now);
	wall = now.tv_sec * SECOND + now.tv_nsec + (at - clock_now());
	seconds = wall / SECOND;
	gmtime_r(&seconds, &utc);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
	return format_string("\"%s.%03dZ\"", text, (int) (wall % SECOND / MS));
}

static void
write_state(const Term *term, bool leads)
{
	char	   *instance = json_text(term->instance);
	char	   *leader = json_text(term->leader);
	char	   *since = leads ? wall_time(term->began) : strdup("null");
	char	   *until = term_is_ours(term) ? wall_time(term->deadline) :
	term->leader != NULL ? wall_time(term->leader_until) : strdup("null");
	char	   *text = format_string("{\"lock\": %s, \"instance\": %s, \"leads\": %s, \"leader\": %s,"
									 " \"token\": %s, \"since\": %s, \"until\": %s}\n",
									 term->target->lock_id, instance, leads ? "true" : "false",
									 leader, leads ? term->token : "null", since, until);

	if (!write_file(text))
	{
		if (!has_complained)
			complain("could not write \"%s\": %s", path, strerror(errno));
		has_complained = true;
	}
	else
		has_complained = false;
	free(instance);
	free(leader);
	free(since);
	free(until);
	free(text);
}

/* ---------------------------------------------------------------------
 * Both
 * ---------------------------------------------------------------------
 */

/* At start; a file that cannot be written ends the program. */
void
report_init(const char *status_file)
{
	path = status_file;
	if (path != NULL)
	{
		/* pids are not unique where containers share a directory */
		new_path = format_string("%s.%d-%llx", path, (int) getpid(), (long long) clock_now());
		if (!write_file("{\"leads\": false}\n"))
			die(EXIT_USAGE, "could not write --status-file \"%s\": %s", path, strerror(errno));
		atexit(report_end);
	}
	open_systemd();
}

/* Does anybody want to hear who leads while we do not? */
bool
report_has_readers(void)
{
	return path != NULL || systemd >= 0;
}

/* Tell what has changed. */
void
report_term(const Term *term, bool leads)
{
	char	   *state;

	/* not ready before the server has answered */
	if (!report_has_readers() || !term->was_answered)
		return;
	state = format_string("%s %s %lld %s", leads ? "t" : "f", term->token,
						  (long long) (term_is_ours(term) ? term->deadline : term->leader_until),
						  term->leader != NULL ? term->leader : "");
	if (last_state != NULL && strcmp(state, last_state) == 0)
	{
		free(state);
		return;
	}
	free(last_state);
	last_state = state;
	if (path != NULL)
		write_state(term, leads);
	if (systemd >= 0)
	{
		char	   *status = leads ?
		format_string("READY=1\nSTATUS=leads lock %s, token %s", term->target->lock, term->token) :
		term->leader != NULL ?
		format_string("READY=1\nSTATUS=waits for lock %s, which %s leads", term->target->lock, term->leader) :
		format_string("READY=1\nSTATUS=waits for lock %s", term->target->lock);

		if (last_status == NULL || strcmp(last_status, status) != 0)
			tell_systemd(status);
		free(last_status);
		last_status = status;
	}
}

void
report_stopping(void)
{
	tell_systemd("STOPPING=1");
}

/* Nobody is here to tell any more. */
void
report_end(void)
{
	if (path != NULL)
		unlink(path);
}
