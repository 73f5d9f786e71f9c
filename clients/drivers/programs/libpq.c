@@ libpq

#include <poll.h>
#include <pthread.h>

static char input[8192];
static size_t filled;

/* a line of the input, without stdio's buffer, so that poll() sees all of it */
static void
line(char *to)
{
	char	   *end;

	while ((end = memchr(input, '\n', filled)) == NULL)
	{
		ssize_t		n = read(0, input + filled, sizeof(input) - filled);

		if (n <= 0)
			exit(1);
		filled += n;
	}
	memcpy(to, input, end - input);
	to[end - input] = '\0';
	filled -= end + 1 - input;
	memmove(input, end + 1, filled);
}

struct job
{
	PGconn	   *db;
	char		sql[8192];
	char		state[6];
};

static void *
run_job(void *arg)
{
	struct job *job = arg;

	guarded(job->db, token, job->sql, job->state);
	return NULL;
}

/* the page's pipeline, with a statement in it that waits for us */
static void
open_transaction(PGconn *db, const char *insert, char state[6])
{
	PGconn	   *gate = PQconnectdb("");
	struct job	job = {.db = db};
	const char *values = strstr(insert, "VALUES (");
	pthread_t	thread;
	char		go[8192];
	int			waits = 0;

	PQclear(PQexec(gate, "SELECT pg_advisory_lock(1)"));
	snprintf(job.sql, sizeof(job.sql), "%.*sSELECT %.*s FROM pg_advisory_lock(1)", (int) (values - insert), insert,
			 (int) strcspn(values + 8, ")"), values + 8);
	pthread_create(&thread, NULL, run_job, &job);
	while (!waits)
	{
		PGresult   *result = PQexec(gate, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
									   " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())");

		waits = PQntuples(result) > 0;
		PQclear(result);
	}
	puts("open");
	line(go);
	PQfinish(gate);
	pthread_join(thread, NULL);
	memcpy(state, job.state, 6);
}

int
main(void)
{
	PGconn	   *db2 = PQconnectdb("");
	const char *nobody[] = {"nobody"};
	PGresult   *result = ask("SELECT le_is_leader(1, $1)", 1, nobody);
	int			no = is_true(result, 0);
	int64_t		next = 0;

	PQclear(result);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (;;)
	{
		char		command[8192];
		char		state[6] = "";
		struct pollfd fd = {0, POLLIN, 0};
		int64_t		pause;

		if (clock_ms() >= next)
			next = clock_ms() + turn();
		pause = next - clock_ms();
		if (memchr(input, '\n', filled) == NULL && poll(&fd, 1, pause > 0 ? (int) pause : 0) <= 0)
			continue;
		line(command);
		if (strcmp(command, "stop") == 0)
			break;
		else if (strcmp(command, "me") == 0)
			puts(me);
		else if (strcmp(command, "token") == 0)
			puts(leads() ? token : "none");
		else if (strcmp(command, "false") == 0)
			puts(no ? "yes" : "no");
		else
		{
			if (strncmp(command, "open ", 5) == 0)
				open_transaction(db2, command + 5, state);
			else
				guarded(db2, token, command + 3, state);
			printf(*state ? "error %s\n" : "done\n", state);
		}
	}
	step_down();
	return 0;
}
