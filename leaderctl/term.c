/*-------------------------------------------------------------------------
 *
 * term.c
 *	  The client's rule: a term, from waiting for it to its release.
 *
 * The rule (README, "How a client uses it"): the deadline is the time before
 * sending plus valid_for_ms; an answer after the deadline is void; a token whose
 * release or transfer has been sent is dead, and its end is asked for until it
 * is answered.  Whoever runs a command says what he wants, and asks for the end
 * of a term only when the command is gone.
 *
 * One connection, one question at a time: it waits in le_campaign() only while
 * there is no command.
 *
 * Floor: parts.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "leaderctl.h"

/*
 * One le_campaign() waits for so long, then asks anew; the second if somebody
 * wants to hear from us who leads meanwhile.  A tenth of the wait is missing from
 * the lease when we are elected, so it is no longer than that.
 */
#define WAIT_MAX (30 * SECOND)
#define WAIT_MAX_WATCHED (5 * SECOND)

/*
 * An attempt to connect, or an answer, takes no longer than a third of the
 * lease, so that there is time for another attempt, within these bounds.
 */
#define PATIENCE_MIN (500 * MS)
#define PATIENCE_MAX (5 * SECOND)

/* ---------------------------------------------------------------------
 * A term's begin and end
 * ---------------------------------------------------------------------
 */

/*
 * A name of our own, whatever was given: the name is the credential, and two
 * with one name would lead at once.
 */
static void
make_instance(const char *given, char *instance, size_t size)
{
	char		host[65] = "";
	unsigned char random_bytes[6];
	char		suffix[2 * sizeof(random_bytes) + 1];

	if (gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0')
		strcpy(host, "host");
	if (getrandom(random_bytes, sizeof(random_bytes), 0) != sizeof(random_bytes))
		die(EXIT_FAILED, "could not get random bytes: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(random_bytes); i++)
		snprintf(suffix + 2 * i, 3, "%02x", random_bytes[i]);
	snprintf(instance, size, "%s:%s", given != NULL ? given : host, suffix);
}

void
term_open(Term *term, const Target *target, const Options *options)
{
	Time		patience = options->lease / 3;

	memset(term, 0, sizeof(Term));
	term->options = options;
	term->target = target;
	term->gives_up_at = NEVER;
	make_instance(options->instance, term->instance, sizeof(term->instance));
	srandom(clock_now() ^ getpid());
	if (patience > PATIENCE_MAX)
		patience = PATIENCE_MAX;
	if (patience < PATIENCE_MIN)
		patience = PATIENCE_MIN;
	session_open(&term->session, target, PROGNAME " run", patience);
}

void
term_close(Term *term)
{
	session_close(&term->session);
	free(term->leader);
	term->leader = NULL;
}

/* Is there one to keep or to end? */
bool
term_is_ours(const Term *term)
{
	return term->token[0] != '\0';
}

static void
set_leader(Term *term, const char *leader, Time until)
{
	free(term->leader);
	term->leader = leader != NULL ? strdup(leader) : NULL;
	term->leader_until = until;
}

/* It is over, and there is nothing to be ended. */
void
term_forget(Term *term)
{
	term->token[0] = '\0';
	term->deadline = 0;
	set_leader(term, NULL, NEVER);
	term->knows_leader = false;
}

static void
set_next_beat(Term *term, Time sent)
{
	const Options *options = term->options;

	term->next_beat = sent + options->renew - options->jitter +
		2 * (options->jitter / 1000) * (random() % 1001);
}

/* ---------------------------------------------------------------------
 * Questions
 * ---------------------------------------------------------------------
 */

/* A job that has not been begun is not done. */
static bool
needs_hold(const Term *term)
{
	return term->options->at_most_every > 0 && term->was_used;
}

static TermQuestion
next_question(const Term *term, TermWish wish, Time now)
{
	switch (wish)
	{
		case WISH_LEAD:
			return term_is_ours(term) ? ASK_NOTHING : ASK_CAMPAIGN;
		case WISH_KEEP:
			if (!term_is_ours(term) || term->is_lost)
				return ASK_NOTHING;
			if (term->asks_rank)
				return ASK_RANK;
			return now >= term->next_beat ? ASK_BEAT : ASK_NOTHING;
		case WISH_END:
			if (!term_is_ours(term))
				return ASK_NOTHING;
			return term->no_transfer || needs_hold(term) ? ASK_RELEASE : ASK_TRANSFER;
		case WISH_NOTHING:
			break;
	}
	return ASK_NOTHING;
}

/* How long the next le_campaign() waits */
static Time
campaign_wait(const Term *term)
{
	Time		wait = term->is_watched ? WAIT_MAX_WATCHED : WAIT_MAX;
	Time		left;

	if (wait > term->options->lease)
		wait = term->options->lease;
	wait = target_wait(term->target, wait);

	/* to know who leads first, and then wait */
	if (term->is_watched && !term->knows_leader)
		return 0;
	if (term->gives_up_at == NEVER)
		return wait;
	left = term->gives_up_at - clock_now();
	return left < 0 ? 0 : left < wait ? left : wait;
}

/* Send the question that serves the wish, if it is time. */
void
term_pursue(Term *term, TermWish wish)
{
	const Options *options = term->options;
	TermQuestion question = next_question(term, wish, clock_now());
	const char *columns = "";
	const char *call = NULL;
	const char *values[7] = {term->target->lock_id, term->instance, term->token};
	int			n_values = 3;
	char		lease[24];
	char		wait[24];
	char		priority[24];
	char		hold[24];
	Time		at_most = 0;
	char	   *sql;

	if (question == ASK_NOTHING || term->asked != ASK_NOTHING ||
		term->session.state != SESSION_IDLE)
		return;

	snprintf(lease, sizeof(lease), "%" PRId64, options->lease / MS);
	snprintf(priority, sizeof(priority), "%d", options->priority);
	snprintf(hold, sizeof(hold), "%" PRId64, needs_hold(term) ? options->at_most_every / MS : 0);
	switch (question)
	{
		case ASK_CAMPAIGN:
			at_most = campaign_wait(term);
			snprintf(wait, sizeof(wait), "%" PRId64, at_most / MS);
			values[2] = lease;
			values[3] = wait;
			values[4] = options->info;
			values[5] = priority;
			n_values = 6;
			columns = "elected, token, valid_for_ms, leader_id, remaining_ms FROM";
			call = "le_campaign($1, $2, $3, $4, $5, $6)";
			break;
		case ASK_BEAT:
			columns = "leads, waiting, valid_for_ms, resign_requested FROM";
			call = "le_keep_alive($1, $2, $3)";
			break;
		case ASK_RANK:
			values[1] = priority;
			n_values = 2;
			columns = "pg_catalog.max(priority) OPERATOR(pg_catalog.>) $2 FROM";
			call = "leader_waiting WHERE lock_id OPERATOR(pg_catalog.=) $1";
			break;
		case ASK_TRANSFER:
			call = "le_transfer($1, $2, $3)";
			break;
		case ASK_RELEASE:
			values[3] = hold;
			n_values = 4;
			call = "le_release($1, $2, $3, $4)";
			break;
		case ASK_NOTHING:
			return;
	}
	if (question == ASK_TRANSFER || question == ASK_RELEASE)
	{
		term->dead_token = strtoll(term->token, NULL, 10);
		set_leader(term, NULL, NEVER);
	}

	sql = format_string("SELECT %s %s.%s", columns, term->target->schema, call);
	term->asked = question;
	session_ask(&term->session, at_most, sql, n_values, values);
	free(sql);
}

/* ---------------------------------------------------------------------
 * Answers
 * ---------------------------------------------------------------------
 */

static Time
milliseconds(const char *text)
{
	return text != NULL ? strtoll(text, NULL, 10) * MS : 0;
}

static TermNews
take_campaign(Term *term, bool elected)
{
	const Session *session = &term->session;
	const char *token = session_field(session, 1);
	Time		deadline = session->since + milliseconds(session_field(session, 2));

	term->knows_leader = true;
	term->was_answered = true;
	if (!elected)
	{
		set_leader(term, session_field(session, 3),
				   clock_now() + milliseconds(session_field(session, 4)));
		return NEWS_FOLLOWS;
	}
	snprintf(term->token, sizeof(term->token), "%s", token);
	term->deadline = deadline;
	term->was_used = term->was_used && strtoll(token, NULL, 10) == term->dead_token;
	term->no_transfer = false;
	term->is_lost = false;
	term->asks_rank = false;

	/* of a term that is dead, or was frozen over: ours only to end it */
	if (strtoll(token, NULL, 10) <= term->dead_token || clock_now() >= deadline)
	{
		term->no_transfer = true;
		return NEWS_NONE;
	}
	term->began = clock_now();
	term->next_beat = term->began;	/* the wait has cost some of the lease */
	set_leader(term, term->instance, NEVER);
	return NEWS_ELECTED;
}

static TermNews
take_beat(Term *term, bool leads)
{
	const Session *session = &term->session;

	set_next_beat(term, clock_now());
	if (!term_is_ours(term) || clock_now() >= term->deadline)
		return NEWS_NONE;		/* an answer after the deadline is void */
	if (!leads)
	{
		term->is_lost = true;
		set_leader(term, NULL, NEVER);
		return NEWS_LOST;
	}
	term->deadline = session->since + milliseconds(session_field(session, 2));
	set_next_beat(term, session->since);
	term->asks_rank = term->options->yield && term->options->priority < 9 &&
		session_field(session, 1)[0] == 't';
	return session_field(session, 3)[0] == 't' ? NEWS_RESIGN : NEWS_KEPT;
}

/* The question is answered, or lost with its connection. */
static TermNews
take_answer(Term *term)
{
	Session    *session = &term->session;
	TermQuestion asked = term->asked;
	const char *first = session_field(session, 0);
	bool		yes = first != NULL && first[0] == 't';

	term->asked = ASK_NOTHING;
	if (asked == ASK_RANK)
		term->asks_rank = false;	/* answered or not, the next heartbeat is
									 * due */
	if (session->sqlstate[0] != '\0')
	{
		/* 57014: we have cancelled it ourselves, to stop */
		if (strcmp(session->sqlstate, "57014") != 0 || asked != ASK_CAMPAIGN)
			session_complain(session);
		if (asked == ASK_TRANSFER)
			term->no_transfer = true;
		if (strcmp(session->sqlstate, "25006") == 0)
			session_rotate(session);	/* a standby */
		/* a server that cannot now may be another one by the next attempt */
		if (session->state != SESSION_CLOSED)
			session_drop(session);
		return NEWS_NONE;
	}

	switch (asked)
	{
		case ASK_CAMPAIGN:
			return take_campaign(term, yes);

		case ASK_BEAT:
			return take_beat(term, yes);

		case ASK_RANK:
			return yes ? NEWS_OUTRANKED : NEWS_NONE;

		case ASK_TRANSFER:
			if (!yes)
			{
				term->no_transfer = true;	/* nobody waits */
				return NEWS_NONE;
			}
			say("has handed lock %s over", term->target->lock);
			break;

		case ASK_RELEASE:
			if (yes)
				say("has released lock %s", term->target->lock);
			break;

		case ASK_NOTHING:
			return NEWS_NONE;
	}
	term_forget(term);
	return NEWS_ENDED;
}

/* Something has happened on the connection, or it is term_wakes_at(). */
TermNews
term_turn(Term *term)
{
	Session    *session = &term->session;

	session_turn(session);
	if (term->asked != ASK_NOTHING && (session->state == SESSION_IDLE ||
									   session->state == SESSION_CLOSED))
		return take_answer(term);
	if (session->state == SESSION_CLOSED)
		session_complain(session);
	return NEWS_NONE;
}

/* When to have a turn, and to pursue the wish, even if nothing has happened */
Time
term_wakes_at(const Term *term, TermWish wish)
{
	Time		at = session_wakes_at(&term->session);

	if (wish == WISH_KEEP && term_is_ours(term) && !term->is_lost &&
		term->session.state == SESSION_IDLE && term->next_beat < at)
		at = term->next_beat;
	return at;
}

/* Told to stop: do not wait for the lead any longer. */
void
term_stop_waiting(Term *term)
{
	if (term->asked == ASK_CAMPAIGN)
		session_cancel(&term->session);
}
