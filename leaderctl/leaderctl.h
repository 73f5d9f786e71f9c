/*-------------------------------------------------------------------------
 *
 * leaderctl.h
 *	  What the files of leaderctl know of each other.
 *
 * THE MAP, from the roof to the ground.  Whoever is called stands below: each
 * file uses only files further down ("make arrows" looks whether that is so).
 *
 * roof
 *	main.c			the command line: commands, options
 * commands
 *	run.c			a command runs while we lead
 *	watch.c			a command at each change of leader
 *	show.c			status, history, warnings
 *	operate.c		resign, revoke, transfer, release
 * parts: what commands are made of
 *	follow.c		status --watch: the same again at each change
 *	status.c		who leads, and why nobody does: what is asked, how it is told
 *	report.c		tells who leads: a status file, systemd
 *	health.c		does a leader work?
 *	keeper.c		the process that keeps a command, and ends it in time
 *	term.c			the client's rule: a term, from waiting for it to its release
 * connection
 *	session.c		one that never blocks
 *	connect.c		connecting, and whether all that is needed is there
 * ground
 *	wake.c			signals as something to poll for
 *	table.c			texts and tables that fit a terminal
 *	output.c		messages and texts
 *	clock.c			time that does not stop while the machine sleeps
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEADERCTL_H
#define LEADERCTL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <libpq-fe.h>

#define PROGNAME "leaderctl"
#define VERSION "1.0"

/* exit codes, besides those of a command */
#define EXIT_FAILED 1			/* the server said no */
#define EXIT_USAGE 2			/* wrong arguments, wrong set-up, no
								 * connection; nothing was started */
#define EXIT_NOT_LED 3			/* run: not elected; status: nobody leads */

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
extern void warn(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void complain(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void detail(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void hint(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void die(int status, const char *format,...) __attribute__((format(printf, 2, 3), noreturn));
extern const char *without_severity(const char *message);
extern void open_standard_files(void);
extern void complain_anew(char *error, char **said);
extern void flush_output(void);
extern char *json_text(const char *text);
extern char *format_string(const char *format,...) __attribute__((format(printf, 1, 2)));

/* ---------------------------------------------------------------------
 * table.c
 * ---------------------------------------------------------------------
 */

typedef enum Colour
{
	COLOUR_NONE, COLOUR_TITLE, COLOUR_GOOD, COLOUR_CARE, COLOUR_BAD
} Colour;

#define TABLE_COLUMNS_MAX 12

typedef struct TableColumn
{
	const char *title;
	bool		right;			/* numbers */
	bool		may_shrink;		/* can be cut and understood */
} TableColumn;

typedef struct TableCell
{
	char	   *text;			/* NULL: the one on its left goes on here */
	Colour		colour;
} TableCell;

typedef struct Table
{
	const TableColumn *columns;
	int			n_columns;
	TableCell  *cells;			/* row by row */
	int			n_cells;
	int			room;
} Table;

extern void terminal_init(void);
extern bool terminal_is_there(void);
extern int	terminal_width(void);
extern int	terminal_height(void);
extern const char *terminal_colour(Colour colour);
extern char *text_printable(const char *text);
extern int	text_width(const char *text);
extern void text_write(FILE *out, const char *text, int width, bool right);
extern void text_write_json(FILE *out, const char *json, bool in_a_line);
extern const char *span_text(int64_t ms);
extern void table_begin(Table *table, const TableColumn *columns, int n_columns);
extern void table_add(Table *table, const char *text, Colour colour);
extern void table_write(Table *table, FILE *out);

/* ---------------------------------------------------------------------
 * wake.c
 * ---------------------------------------------------------------------
 */

#define N_STOP_SIGNALS 4
extern const int stop_signals[N_STOP_SIGNALS];
extern void wake_at(int signal);
extern void wake_at_stop(void);
extern int	wake_fd(void);
extern void wake_clear(void);
extern bool wake_has_come(int signal);
extern bool wake_told_to_stop(void);
extern void wake_reset(void);

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
	Time		end_by;			/* by then it has; NEVER: nobody has closed it */
	bool		is_killed;		/* by us, as it did not do its work */
	bool		has_begun;		/* a command, that is over; see
								 * keeper_is_gone() */
	KeeperShared *shared;
} Keeper;

extern void keeper_init(void);
extern bool keeper_start(Keeper *keeper, char *const *argv,
						 char *const *environment, bool has_input,
						 Time deadline, Time kill_after);
extern void keeper_prolong(Keeper *keeper, Time deadline);
extern void keeper_end(Keeper *keeper);
extern bool keeper_is_gone(Keeper *keeper, int *status);
extern Time keeper_wakes_at(const Keeper *keeper);

/* ---------------------------------------------------------------------
 * connect.c
 * ---------------------------------------------------------------------
 */

/* What the command line tells of server and lock */
typedef struct Target
{
	const char *host;
	const char *port;
	const char *user;
	const char *dbname;			/* or a connection string */
	const char *wanted_schema;	/* NULL: wherever it is */
	const char *lock;			/* as it was given; NULL: none was */

	/* known when check_server() has seen it */
	const char *schema;			/* the extension's, and our role, quoted */
	const char *role;
	char		lock_id[24];
	Time		wait_max;		/* a time-out of the server's would end a
								 * longer one; 0: none would */
} Target;

/* Where an attempt starts that does not start from the user's first host */
typedef struct Hosts
{
	char	   *host;			/* NULL: as the user says */
	char	   *hostaddr;
	char	   *port;
} Hosts;

extern PGconn *connect_start(const Target *target, const char *name,
							 const Hosts *hosts);
extern void connect_rotate(PGconn *conn, Hosts *hosts);
extern PGconn *connect_now(const Target *target, const char *name, char **error);
extern Time target_wait(const Target *target, Time longest);
extern bool check_server(PGconn *conn, Target *target,
						 const char *const *needed, bool standby_will_do);
extern bool find_server(Target *target, const char *name,
						const char *const *needed, char **error);
extern PGconn *connect_checked(Target *target, const char *name,
							   const char *const *needed, bool standby_will_do);
extern PGresult *ask_now(PGconn *conn, const char *sql, int n_values,
						 const char *const *values);
extern char **environment_copy(void);
extern void environment_set(char ***environment, const char *name,
							const char *value);
extern void environment_free(char **environment);
extern void connect_environment(PGconn *conn, char ***environment);

/* ---------------------------------------------------------------------
 * session.c
 * ---------------------------------------------------------------------
 */

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
	const Target *target;
	const char *name;			/* its application_name */
	SessionState state;
	PGconn	   *conn;
	PGresult   *result;			/* of the query that has just ended */
	Hosts		hosts;
	Time		patience;		/* for an attempt, or an answer */
	Time		since;			/* this attempt to connect, or this query */
	Time		late_at;		/* when this query will have taken too long */
	Time		retry_at;
	Time		pause;			/* before the next attempt */
	int			wants;			/* POLLIN, POLLOUT */
	bool		was_notified;	/* by NOTIFY; whoever looks resets it */
	char		sqlstate[6];	/* of the last error; "": none */
	char	   *error;			/* its message; of a lost connection, too */
	char	   *shown;			/* the last one that was shown */
} Session;

extern void session_open(Session *session, const Target *target,
						 const char *name, Time patience);
extern int	session_fd(const Session *session);
extern short session_events(const Session *session);
extern Time session_wakes_at(const Session *session);
extern void session_turn(Session *session);
extern void session_ask(Session *session, Time at_most, const char *sql,
						int n_values, const char *const *values);
extern const char *session_field(const Session *session, int column);
extern void session_cancel(Session *session);
extern void session_complain(Session *session);
extern void session_rotate(Session *session);
extern void session_drop(Session *session);
extern void session_close(Session *session);

/* ---------------------------------------------------------------------
 * main.c: what the command line says
 * ---------------------------------------------------------------------
 */

typedef struct Options
{
	/* run */
	Time		lease;
	Time		renew;
	Time		jitter;
	Time		kill_after;
	Time		max_term;		/* NEVER: none */
	Time		wait;			/* NEVER: for ever */
	Time		at_most_every;	/* 0: as often as it likes */
	int			priority;
	bool		yield;
	bool		once;
	const char *info;			/* NULL: none */
	const char *health;			/* NULL: none */
	Time		health_every;
	int			health_failures;
	Time		sit_out;
	const char *status_file;	/* NULL: none */

	/* status and history */
	bool		watch;
	bool		json;
	int			limit;

	/* what operators do */
	bool		immediately;
	const char *token;
	const char *successor;		/* NULL: the first that waits */
	Time		hold;

	/* several */
	const char *instance;		/* run: what our name begins with */
	char	   *const *argv;	/* the command to run */
} Options;

/* ---------------------------------------------------------------------
 * health.c
 * ---------------------------------------------------------------------
 */

typedef struct Health
{
	const Options *options;
	char	   *const *environment; /* the command's */
	Keeper		check;			/* that runs now */
	Time		started;
	Time		next_at;
	int			failures;		/* in a row */
} Health;

extern void health_begin(Health *health, const Options *options,
						 char *const *environment);
extern bool health_turn(Health *health, bool leads, Time deadline);
extern Time health_wakes_at(const Health *health);
extern bool health_is_running(const Health *health);

/* ---------------------------------------------------------------------
 * term.c
 * ---------------------------------------------------------------------
 */

/* what whoever runs the command wants of the lock now */
typedef enum TermWish
{
	WISH_NOTHING,
	WISH_LEAD,
	WISH_KEEP,
	WISH_END
} TermWish;

/* what has become of it */
typedef enum TermNews
{
	NEWS_NONE,
	NEWS_ELECTED,
	NEWS_KEPT,
	NEWS_LOST,					/* the server says that we do not lead */
	NEWS_RESIGN,				/* kept, but an operator asks us to go */
	NEWS_OUTRANKED,				/* a larger priority waits */
	NEWS_ENDED,					/* released or handed over */
	NEWS_FOLLOWS				/* not elected in this call */
} TermNews;

typedef enum TermQuestion
{
	ASK_NOTHING, ASK_CAMPAIGN, ASK_BEAT, ASK_RANK, ASK_TRANSFER, ASK_RELEASE
} TermQuestion;

typedef struct Term
{
	const Options *options;
	const Target *target;
	Session		session;
	TermQuestion asked;			/* under way */
	char		instance[128];

	char		token[24];		/* "": there is none */
	Time		deadline;		/* we may act until then */
	Time		began;
	Time		next_beat;
	bool		is_lost;		/* the server has said so */
	bool		asks_rank;		/* somebody waits: with what priority? */
	bool		was_used;		/* by a command: set by who runs it */
	bool		no_transfer;	/* nobody waits, or it has failed: release */
	int64_t		dead_token;		/* the largest whose end we have asked for */

	char	   *leader;			/* who leads, as we last heard; NULL: nobody */
	Time		leader_until;	/* at most */
	bool		knows_leader;	/* has been answered since we last led */
	bool		was_answered;	/* ever */
	bool		is_watched;		/* somebody wants to know who leads meanwhile */
	Time		gives_up_at;	/* do not ask for the lead after then */
} Term;

extern void term_open(Term *term, const Target *target, const Options *options);
extern TermNews term_turn(Term *term);
extern void term_pursue(Term *term, TermWish wish);
extern Time term_wakes_at(const Term *term, TermWish wish);
extern bool term_is_ours(const Term *term);
extern void term_forget(Term *term);
extern void term_stop_waiting(Term *term);
extern void term_close(Term *term);

/* ---------------------------------------------------------------------
 * report.c
 * ---------------------------------------------------------------------
 */

extern void report_init(const char *status_file);
extern bool report_has_readers(void);
extern void report_term(const Term *term, bool leads);
extern void report_stopping(void);
extern void report_end(void);

/* ---------------------------------------------------------------------
 * status.c
 * ---------------------------------------------------------------------
 */

/* An answer, and when it was asked for */
typedef struct Status
{
	PGresult   *result;
	Time		at;
} Status;

extern const char *const status_needs[];
extern char *status_sql(const Target *target, bool may_observe);
extern const char *const *status_values(const Target *target);
extern bool status_is_standby(const Status *status);
extern bool status_is_notified(const Status *status);
extern bool status_is_led(const Status *status);
extern const char *status_token(const Status *status);
extern Time status_renewed_by(const Status *status);
extern char *status_gist(const Status *status);
extern void status_write(const Status *status, const Target *target, bool fits,
						 FILE *out);
extern void status_write_json(const Status *status, const Target *target,
							  bool in_a_line, FILE *out);

/* ---------------------------------------------------------------------
 * follow.c
 * ---------------------------------------------------------------------
 */

extern int	follow_status(const Target *target, const Options *options,
						  const char *sql);

/* ---------------------------------------------------------------------
 * the commands
 * ---------------------------------------------------------------------
 */

extern int	run_command(Target *target, const Options *options);
extern int	watch_command(Target *target, const Options *options);
extern int	status_command(Target *target, const Options *options);
extern int	history_command(Target *target, const Options *options);
extern int	warnings_command(Target *target, const Options *options);
extern int	resign_command(Target *target, const Options *options);
extern int	revoke_command(Target *target, const Options *options);
extern int	transfer_command(Target *target, const Options *options);
extern int	release_command(Target *target, const Options *options);

#endif							/* LEADERCTL_H */
