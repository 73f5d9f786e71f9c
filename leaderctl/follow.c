/*-------------------------------------------------------------------------
 *
 * follow.c
 *	  status --watch: the same again at each change.
 *
 * What tells of a change: le_observe() of one lock, NOTIFY of all, and where
 * neither is to be had (leader_election.notify is off, a standby) we look every
 * two seconds, and say so.  Besides we look when a lease should have been
 * renewed, and in between the time that is left is counted by our clock.
 *
 * Floor: parts.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* open_memstream() */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "leaderctl.h"

/* an attempt to connect, or an answer, takes no longer */
#define PATIENCE (5 * SECOND)

/* one le_observe() takes no longer, or a dead server would not be noticed */
#define OBSERVE_MAX (10 * SECOND)

/* where nothing tells of changes; and after an error */
#define LOOK_EVERY (2 * SECOND)

/* who waits is nobody's news */
#define REFRESH_EVERY (30 * SECOND)

/* however many changes there are */
#define LOOK_MIN (100 * MS)

typedef enum FollowQuestion
{
	FOLLOW_NOTHING, FOLLOW_LOOK, FOLLOW_LISTEN, FOLLOW_OBSERVE
} FollowQuestion;

typedef struct Follow
{
	const Target *target;
	const Options *options;
	const char *sql;
	Session		session;
	FollowQuestion asked;
	bool		listens;		/* on this connection */
	Status		status;			/* result NULL: none yet */
	Time		next_look;
	char	   *gist;			/* of what was written last */
	bool		is_new;			/* and has not been shown */
} Follow;

/* ---------------------------------------------------------------------
 * Asking
 * ---------------------------------------------------------------------
 */

static bool
can_observe(const Follow *follow)
{
	return follow->target->lock != NULL && !status_is_standby(&follow->status);
}

static bool
can_listen(const Follow *follow)
{
	return follow->target->lock == NULL && !status_is_standby(&follow->status) &&
		status_is_notified(&follow->status);
}

static void
look(Follow *follow, Time now)
{
	follow->asked = FOLLOW_LOOK;
	follow->session.was_notified = false;
	follow->next_look = now + LOOK_EVERY;
	session_ask(&follow->session, 0, follow->sql, 2, status_values(follow->target));
}

static void
observe(Follow *follow, Time now)
{
	Time		longest = target_wait(follow->target, OBSERVE_MAX);
	Time		at_most = follow->next_look - now < longest ? follow->next_look - now : longest;
	char	   *sql = format_string("SELECT token FROM %s.le_observe($1, $2, $3)",
									follow->target->schema);
	char	   *wait = format_string("%" PRId64, at_most / MS);
	const char *const values[] = {follow->target->lock_id, status_token(&follow->status), wait};

	follow->asked = FOLLOW_OBSERVE;
	session_ask(&follow->session, at_most, sql, 3, values);
	free(sql);
	free(wait);
}

static void
pursue(Follow *follow)
{
	Time		now = clock_now();

	if (follow->session.state != SESSION_IDLE || follow->asked != FOLLOW_NOTHING)
		return;
	if (now >= follow->next_look)
		look(follow, now);
	else if (follow->status.result == NULL || follow->session.sqlstate[0] != '\0')
		return;					/* an error: until then */
	else if (can_listen(follow) && !follow->listens)
	{
		follow->asked = FOLLOW_LISTEN;
		session_ask(&follow->session, 0, "LISTEN leader_election", 0, NULL);
	}
	else if (can_observe(follow))
		observe(follow, now);
	else if (follow->session.was_notified)
		follow->next_look = follow->status.at + LOOK_MIN;
}

static void
take_status(Follow *follow, Time asked_at)
{
	PQclear(follow->status.result);
	follow->status.result = follow->session.result;
	follow->status.at = asked_at;
	follow->session.result = NULL;
	follow->is_new = true;
	follow->next_look = can_observe(follow) || can_listen(follow) ?
		status_renewed_by(&follow->status) : asked_at + LOOK_EVERY;
	if (follow->next_look > asked_at + REFRESH_EVERY)
		follow->next_look = asked_at + REFRESH_EVERY;
}

static void
take_answer(Follow *follow)
{
	Session    *session = &follow->session;
	FollowQuestion asked = follow->asked;

	follow->asked = FOLLOW_NOTHING;
	if (session->sqlstate[0] != '\0')
	{
		follow->next_look = clock_now() + LOOK_EVERY;
		follow->is_new = true;
		return;
	}
	switch (asked)
	{
		case FOLLOW_LOOK:
			take_status(follow, session->since);
			break;
		case FOLLOW_LISTEN:
			follow->listens = true;
			follow->next_look = 0;	/* for what happened before */
			break;
		case FOLLOW_OBSERVE:
			{
				const char *token = session_field(session, 0);
				const char *known = status_token(&follow->status);

				/* where nobody leads there may be other news */
				if (known == NULL || token == NULL || strcmp(token, known) != 0)
					follow->next_look = follow->status.at + LOOK_MIN;
			}
			break;
		case FOLLOW_NOTHING:
			break;
	}
}

static void
turn(Follow *follow)
{
	Session    *session = &follow->session;
	bool		was_closed = session->state == SESSION_CLOSED;

	session_turn(session);
	if (session->state == SESSION_CLOSED || session->state == SESSION_CONNECTING)
	{
		follow->listens = false;
		follow->asked = FOLLOW_NOTHING;
		follow->next_look = 0;	/* as soon as there is a server */
		if (!was_closed)
			follow->is_new = true;
	}
	else if (session->state == SESSION_IDLE && follow->asked != FOLLOW_NOTHING)
		take_answer(follow);
}

/* ---------------------------------------------------------------------
 * Showing
 * ---------------------------------------------------------------------
 */

/* In place, or one after the other? */
static bool
draws(const Follow *follow)
{
	return terminal_is_there() && !follow->options->json;
}

/* What a reader should know: "", or why this may be out of date; own memory. */
static char *
make_caveat(const Follow *follow)
{
	const Session *session = &follow->session;
	bool		is_connected = session->state == SESSION_IDLE || session->state == SESSION_BUSY;

	if (session->sqlstate[0] != '\0' || (!is_connected && session->error != NULL))
	{
		char	   *as_of = follow->status.result == NULL ? format_string("%s", "") :
		format_string(" (this is of %s ago)",
					  span_text((clock_now() - follow->status.at) / MS));
		char	   *line = format_string("%s", session->error);
		char	   *caveat;

		line[strcspn(line, "\n")] = '\0';
		caveat = format_string("%s%s: %s", is_connected ? "error" : "no connection", as_of, line);
		free(line);
		free(as_of);
		return caveat;
	}
	if (follow->status.result == NULL || can_observe(follow) || can_listen(follow))
		return format_string("%s", "");
	if (status_is_standby(&follow->status))
		return format_string("on a standby, so this looks every 2 s");
	return format_string("leader_election.notify is off, so this looks every 2 s");
}

static void
write_head(const Follow *follow, FILE *out)
{
	time_t		now = time(NULL);
	struct tm	local;
	char		text[32];
	char	   *caveat = make_caveat(follow);
	char	   *printable = text_printable(caveat);

	localtime_r(&now, &local);
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &local);
	fputs(text, out);
	if (caveat[0] != '\0')
	{
		int			room = terminal_width() - (int) strlen(text) - 2;

		fprintf(out, "  %s", terminal_colour(COLOUR_CARE));
		text_write(out, printable, text_width(printable) < room ? text_width(printable) : room, false);
		fputs(terminal_colour(COLOUR_NONE), out);
	}
	fputs("\n\n", out);
	free(printable);
	free(caveat);
}

/* All of it in one piece, which is to be freed */
static char *
compose(const Follow *follow)
{
	char	   *text = NULL;
	size_t		size;
	FILE	   *out = open_memstream(&text, &size);

	if (out == NULL)
		die(EXIT_FAILED, "out of memory");
	write_head(follow, out);
	if (follow->status.result != NULL)
		status_write(&follow->status, follow->target, draws(follow), out);
	fclose(out);
	return text;
}

/* In place: no more lines than there are, each cleared behind its end */
static void
draw(const Follow *follow)
{
	char	   *text = compose(follow);
	char	   *line = text;
	int			height = terminal_height();
	int			n_lines = 0;

	for (const char *c = text; *c != '\0'; c++)
		n_lines += *c == '\n';
	fputs("\033[H", stdout);
	for (int i = 0; i < n_lines && i < height - 1; i++)
	{
		size_t		length = strcspn(line, "\n");

		if (i == height - 2 && n_lines > height - 1)
			printf("... and %d more\033[K\n", n_lines - i);
		else
			printf("%.*s\033[K\n", (int) length, line);
		line += length + 1;
	}
	fputs("\033[J", stdout);
	free(text);
}

/* One after the other, when something has changed */
static void
append(Follow *follow)
{
	char	   *gist;

	if (follow->session.sqlstate[0] != '\0')
		session_complain(&follow->session);
	if (follow->status.result == NULL || follow->session.sqlstate[0] != '\0')
		return;
	free(follow->session.shown);
	follow->session.shown = NULL;
	gist = status_gist(&follow->status);
	if (follow->gist != NULL && strcmp(gist, follow->gist) == 0)
	{
		free(gist);
		return;
	}
	if (follow->options->json)
		status_write_json(&follow->status, follow->target, true, stdout);
	else
	{
		char	   *text = compose(follow);

		printf("%s%s", follow->gist != NULL ? "\n" : "", text);
		free(text);
	}
	free(follow->gist);
	follow->gist = gist;
}

/* The other screen, without a cursor and with long lines cut, and back */
static void
begin_screen(void)
{
	fputs("\033[?1049h\033[?25l\033[?7l", stdout);
}

static void
end_screen(void)
{
	fputs("\033[?7h\033[?25h\033[?1049l", stdout);
	fflush(stdout);
}

/* Ctrl-Z: as ever, but leave the terminal as it was. */
static void
suspend(void)
{
	end_screen();
	signal(SIGTSTP, SIG_DFL);
	kill(getpid(), SIGTSTP);
	wake_at(SIGTSTP);
	begin_screen();
}

int
follow_status(const Target *target, const Options *options, const char *sql)
{
	Follow		follow = {.target = target,.options = options,.sql = sql};
	Time		next_draw = 0;

	wake_at_stop();
	if (draws(&follow))
	{
		wake_at(SIGWINCH);
		wake_at(SIGTSTP);
		begin_screen();
	}
	session_open(&follow.session, target, PROGNAME " status", PATIENCE);
	while (!wake_told_to_stop())
	{
		struct pollfd fds[2];
		Time		until;
		Time		now;

		if (draws(&follow) && wake_has_come(SIGTSTP))
		{
			suspend();
			follow.is_new = true;
		}
		turn(&follow);
		pursue(&follow);
		now = clock_now();
		if (draws(&follow) && (follow.is_new || now >= next_draw || wake_has_come(SIGWINCH)))
		{
			draw(&follow);
			next_draw = now + SECOND;
		}
		else if (follow.is_new && !draws(&follow))
			append(&follow);
		follow.is_new = false;
		flush_output();

		until = session_wakes_at(&follow.session);
		if (follow.session.state == SESSION_IDLE && follow.next_look < until)
			until = follow.next_look;
		if (draws(&follow) && next_draw < until)
			until = next_draw;
		fds[0].fd = wake_fd();
		fds[0].events = POLLIN;
		fds[1].fd = session_fd(&follow.session);
		fds[1].events = session_events(&follow.session);
		poll(fds, 2, clock_timeout(until));
		wake_clear();
	}
	if (draws(&follow))
	{
		char	   *text = compose(&follow);

		end_screen();
		fputs(text, stdout);
		free(text);
	}
	session_close(&follow.session);
	PQclear(follow.status.result);
	free(follow.gist);
	return 0;
}
