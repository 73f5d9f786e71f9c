/*-------------------------------------------------------------------------
 *
 * leaderctl.h
 *	  The map of leaderctl: one file for each room.
 *
 *	main.c		the command line, and which command it is
 *	run.c		leaderctl run: the term, from waiting for it to its release
 *	keeper.c	the process that keeps the command, and ends it in time
 *	watch.c		leaderctl watch: a command at each change of leader
 *	show.c		status, history, resign, revoke, transfer, release, warnings
 *	session.c	the connection: connecting, asking, starting anew
 *	output.c	messages, tables, JSON
 *	clock.c		time that does not stop while the machine sleeps
 *
 * A file uses only files further down.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEADERCTL_H
#define LEADERCTL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <libpq-fe.h>

#define PROGNAME "leaderctl"
#define VERSION "1.0"

/* exit codes, besides those of a command */
#define EXIT_FAILED 1			/* the server said no, or could not be asked */
#define EXIT_USAGE 2			/* wrong arguments or set-up; nothing was started */
#define EXIT_NOT_ELECTED 3		/* --wait is over */

/* ---------------------------------------------------------------------
 * clock.c: nanoseconds of CLOCK_BOOTTIME
 * ---------------------------------------------------------------------
 */

typedef int64_t Time;

#define MS ((Time) 1000000)
#define SECOND (1000 * MS)
#define NEVER INT64_MAX

extern Time clock_now(void);
extern int	clock_timeout(Time until);	/* for poll(): ms, rounded up */
extern bool duration_parse(const char *text, Time *duration);
extern const char *duration_text(Time duration);

/* ---------------------------------------------------------------------
 * output.c
 * ---------------------------------------------------------------------
 */

extern bool quiet;

extern void say(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void complain(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void hint(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void die(int status, const char *format,...) __attribute__((format(printf, 2, 3), noreturn));
extern char *format_string(const char *format,...) __attribute__((format(printf, 1, 2)));

/* ---------------------------------------------------------------------
 * keeper.c
 * ---------------------------------------------------------------------
 */

typedef struct KeeperShared KeeperShared;

/* A command that runs until it ends, is ended, or its time is over */
typedef struct Keeper
{
	pid_t		pid;			/* of the process that keeps it; 0: none */
	int			fd;				/* to it; when it is closed the command ends */
	KeeperShared *shared;
} Keeper;

extern void keeper_init(void);
extern bool keeper_start(Keeper *keeper, char *const *argv, Time deadline,
						 Time kill_after);
extern void keeper_prolong(Keeper *keeper, Time deadline);
extern void keeper_end(Keeper *keeper);
extern bool keeper_is_gone(Keeper *keeper, int *status);
extern Time keeper_wakes_at(const Keeper *keeper);

/* ---------------------------------------------------------------------
 * session.c
 * ---------------------------------------------------------------------
 */

/* What the command line tells of server and lock */
typedef struct Target
{
	const char *host;
	const char *port;
	const char *user;
	const char *dbname;			/* or a connection string */
	const char *schema;			/* the extension's, and our role, quoted */
	const char *role;
	const char *lock;			/* as it was given; NULL: none was */
	int64_t		lock_id;		/* known when the session is ready */
} Target;

typedef enum SessionState
{
	SESSION_CLOSED,				/* until retry_at */
	SESSION_CONNECTING,
	SESSION_IDLE,
	SESSION_BUSY				/* a query is under way */
} SessionState;

/*
 * A connection that never blocks: whoever has one polls session_fd() for
 * session_events(), until session_wakes_at(), and calls session_turn().
 */
typedef struct Session
{
	Target	   *target;
	const char *name;			/* its application_name */
	SessionState state;
	PGconn	   *conn;
	PGresult   *result;			/* of the query that has just ended */
	Time		since;			/* this attempt to connect, or this query */
	Time		patience;		/* how long this query is waited for */
	Time		retry_at;
	Time		pause;			/* before the next attempt */
	int			wants;			/* POLLIN, POLLOUT */
	char		sqlstate[6];	/* of the last error; "": none */
	char	   *error;			/* its message; of a lost connection, too */
} Session;

extern void session_open(Session *session, Target *target, const char *name);
extern int	session_fd(const Session *session);
extern short session_events(const Session *session);
extern Time session_wakes_at(const Session *session);
extern void session_turn(Session *session);
extern void session_ask(Session *session, Time at_most, const char *sql,
						int n_values, const char *const *values);
extern const char *session_field(const Session *session, int column);
extern void session_drop(Session *session);
extern void session_close(Session *session);

extern PGconn *connect_now(const Target *target, const char *name);
extern void check_server(PGconn *conn, Target *target,
						 const char *const *functions);

/* ---------------------------------------------------------------------
 * run.c
 * ---------------------------------------------------------------------
 */

typedef struct RunOptions
{
	const char *instance;		/* what our name begins with */
	Time		lease;
	Time		renew;
	Time		jitter;
	Time		kill_after;
	Time		max_term;		/* NEVER: none */
	Time		wait;			/* NEVER: for ever */
	Time		at_most_every;	/* 0: as often as it likes */
	int			priority;
	bool		once;
	char	   *const *argv;
} RunOptions;

extern int	run_command(Target *target, const RunOptions *options);

#endif							/* LEADERCTL_H */
