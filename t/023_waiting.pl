# Who waits for a lock and is no more, however he ends, leaves no place in the
# list behind and is never elected; two hundred who wait are one election, and
# nothing that the leader notices.
#
# The server has room for many sessions and hardly any for us.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use List::Util qw(min);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $long = 600_000;    # outlives the test
my $wait = 60_000;     # as long as one may wait
my $crowd = 200;

my $node = PostgreSQL::Test::Cluster->new('main');
my $event = $node->pg_version >= 17 ? 'LeaderElectionWait' : 'Extension';
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
max_connections = 1000
restart_after_crash = on
leader_election.memory_limit = 2MB
leader_election.sweep_interval = 1h
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION leader_election;
	CREATE TABLE work (step text);
	CREATE TABLE answers (elected boolean, token bigint, leader_id text);});

sub begins
{
	my ($lock, $instance, $lease) = @_;
	my $token = $node->safe_psql('postgres',
		"SELECT token FROM le_campaign($lock, '$instance', $lease)");
	like($token, qr/^\d+$/, "$instance leads $lock");
	return $token;
}

sub leader
{
	my ($lock) = @_;
	return $node->safe_psql('postgres', "SELECT le_leader($lock)");
}

sub waiting
{
	my ($lock) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM leader_waiting WHERE lock_id = $lock");
}

sub is_waiting
{
	my ($lock, $count) = @_;
	ok( $node->poll_query_until('postgres',
			"SELECT count(*) = $count FROM leader_waiting WHERE lock_id = $lock"),
		"$count wait for $lock");
	return;
}

sub is_gone
{
	my ($pid, $name) = @_;
	ok( $node->poll_query_until('postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"),
		$name);
	return;
}

# A session that waits; returns it and its server process.
sub waiter
{
	my ($lock, $instance, $before) = @_;
	my $session = Session->new($node->connstr('postgres'));
	my $pid = $session->pid;
	$session->say($before) if defined $before;
	$session->send(
		"SELECT elected, leader_id FROM le_campaign($lock, '$instance', $long, $wait)"
	);
	ok( $node->poll_query_until('postgres', "
			SELECT count(*) = 1 FROM leader_waiting AS w
			  JOIN pg_stat_activity AS a USING (pid)
			 WHERE lock_id = $lock AND instance = '$instance' AND pid = $pid
				   AND wait_event_type = 'Extension' AND wait_event = '$event'"),
		"$instance waits for $lock");
	return ($session, $pid);
}

# What a session says that ends by itself
sub last_words
{
	my ($session) = @_;
	eval { $session->{run}->finish };
	return $session->{out};
}

# When the process is gone its socket has been closed.
sub kill_client
{
	my ($session) = @_;
	$session->{run}->signal('KILL');
	last_words($session);
	return;
}

subtest 'the client is killed' => sub {
	my $token = begins(1, 'a', $long);
	my ($first, $first_pid) = waiter(1, 'first');
	my ($second, $second_pid) = waiter(1, 'second');
	my $until = $node->safe_psql('postgres', "
		SELECT since + '$wait milliseconds' FROM leader_waiting
		 WHERE pid = $first_pid");

	kill_client($first);
	is_gone($first_pid, 'it does not wait for nobody');
	is( $node->safe_psql('postgres', "SELECT clock_timestamp() < '$until'"),
		't', 'until the end');
	is(waiting(1), 1, 'and leaves no place');

	kill_client($second);
	is( $node->safe_psql('postgres', "SELECT le_release(1, 'a', $token)"),
		't', 'the lock becomes vacant before it has noticed');
	is_gone($second_pid, 'it notices');
	is( $node->safe_psql('postgres',
			'SELECT le_leader(1) IS NULL, count(*) FROM le_lease'),
		't|0',
		'and is not elected');
	is(waiting(1), 0, 'no place is left');
};

subtest 'the wait is interrupted' => sub {
	begins(2, 'a', $long);

	my ($session, $pid) = waiter(2, 'cancelled');
	is($node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)"),
		't', 'a cancel');
	is($session->receive, 'ERROR:  57014', 'it obeys');
	is(waiting(2), 0, 'no place is left');

	is( $session->say("
			SET statement_timeout = '10ms';
			SELECT elected FROM le_campaign(2, 'timed out', $long, $wait)"),
		'ERROR:  57014',
		'statement_timeout');
	is(waiting(2), 0, 'no place is left');
	is( $session->say("
			RESET statement_timeout;
			SELECT elected, leader_id FROM le_campaign(2, 'again', $long, 1)"),
		'f|a',
		'the session may wait again');
	$session->quit;

	($session, $pid) = waiter(2, 'terminated');
	is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)"),
		't', 'a termination');
	like(last_words($session), qr/^FATAL:  57P01/, 'it obeys');
	is_gone($pid, 'it is gone');
	is(waiting(2), 0, 'no place is left');
	is(leader(2), 'a', 'and the leader leads');
};

# What is before us in the list may be dead without knowing.
subtest 'those before us are frozen' => sub {
	begins(3, 'a', $long);
	my @frozen = map { [ waiter(3, "frozen $_") ] } (1 .. 3);
	kill 'STOP', map { $_->[1] } @frozen;

	is($node->safe_psql('postgres', "SELECT le_release(3, 'a')"),
		't', 'released');
	is( $node->safe_psql('postgres',
			"SELECT elected FROM le_campaign(3, 'short', $long, 1)"),
		't',
		'a short wait leads');
	my ($session) = waiter(3, 'behind');
	is($node->safe_psql('postgres', "SELECT le_release(3, 'short')"),
		't', 'released again');
	is($session->receive, 't|behind', 'a long wait leads');

	kill 'CONT', map { $_->[1] } @frozen;
	foreach my $frozen (@frozen)
	{
		$node->safe_psql('postgres', "SELECT pg_cancel_backend($frozen->[1])");
		is($frozen->[0]->receive, 'ERROR:  57014', 'thawed, and not elected');
		$frozen->[0]->quit;
	}
	$session->quit;
	is(waiting(3), 0, 'no place is left');
};

# A leader that hands over to the first one must not be given one whose wait has
# passed.
subtest 'a wait has passed, and the one who waited is frozen' => sub {
	my $token = begins(9, 'a', $long);
	my $finds = "BEGIN; SELECT le_transfer(9, 'a', $token); ROLLBACK";
	my $session = Session->new($node->connstr('postgres'));
	my $pid = $session->pid;

	# on a slow machine it may have passed before it is frozen: again
	while (1)
	{
		$session->send("SELECT elected, leader_id FROM le_campaign(9, 'b', $long, 2000)");
		$node->poll_query_until('postgres', "
			SELECT wait_event_type = 'Extension' OR state = 'idle'
			  FROM pg_stat_activity WHERE pid = $pid");
		kill 'STOP', $pid;
		last if $node->safe_psql('postgres', $finds) eq 't';
		kill 'CONT', $pid;
		$session->receive;
	}
	pass('there is a first one, while it waits');
	ok( $node->poll_query_until('postgres', "
			SELECT clock_timestamp() > query_start + '2.5 s'
			  FROM pg_stat_activity WHERE pid = $pid AND state = 'active'"),
		'its wait has passed, and it has not left');
	is($node->safe_psql('postgres', $finds), 'f', 'there is none');
	is(waiting(9), 0, 'and none is shown');
	kill 'CONT', $pid;
	is($session->receive, 'f|a', 'thawed, and not elected');
	$session->quit;
};

subtest 'notifications' => sub {
	begins(4, 'a', $long);
	my ($session) = waiter(4, 'b', 'LISTEN news');
	$node->safe_psql('postgres', "NOTIFY news, '$_'") foreach (1 .. 20);
	is(waiting(4), 1, 'do not end a wait');
	$node->safe_psql('postgres', "SELECT le_release(4, 'a')");
	my $answer = $session->receive;
	like($answer, qr/^t\|b$/m, 'which ends as ever');
	$answer .= "\n" . $session->say('SELECT');
	is(scalar(() = $answer =~ /"news"/g), 20, 'and are delivered');
	$session->quit;
};

subtest "$crowd wait" => sub {
	my $token = begins(5, 'a', $long);
	my $script = $node->basedir . '/wait.sql';
	my @pgbench = (
		'pgbench', '-n', '-c', $crowd, '-t', 1, '-f', $script,
		$node->connstr('postgres'));

	# All must have come before a wait is over: how long does that take here?
	append_to_file($script, "SELECT le_leader(5);\n");
	my $start = time();
	command_ok([@pgbench], "$crowd sessions");
	my $crowd_wait = min($wait, 10_000 + 3000 * (time() - $start));
	unlink $script;
	append_to_file($script, "
		INSERT INTO answers SELECT elected, token, leader_id
		  FROM le_campaign(5, 'w' || :client_id, $long, $crowd_wait);\n");
	my $said = '';
	my $pgbench = IPC::Run::start([@pgbench], '<', \undef, '>&', \$said,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	is_waiting(5, $crowd);

	is( $node->safe_psql('postgres',
			"SELECT leads, waiting, valid_for_ms FROM le_keep_alive(5, 'a', $token)"),
		"t|t|$long",
		'the leader leads on, and knows of them');
	is( $node->safe_psql('postgres', "
			SELECT count(*) FILTER (WHERE (le_keep_alive(5, 'a', $token)).leads)
			  FROM generate_series(1, 10000)"),
		10000,
		'ten thousand heartbeats');
	is(waiting(5), $crowd, 'they wait still');
	is(leader(5), 'a', 'for the leader');
	is( $node->safe_psql('postgres', "SELECT le_release(5, 'a', $token)"),
		't', 'which releases');
	ok( $node->poll_query_until('postgres', 'SELECT le_leader(5) IS NOT NULL'),
		'one of them leads');
	my $successor = leader(5);
	like($successor, qr/^w\d+$/, 'it is one of them');
	is_waiting(5, $crowd - 1);
	$token = $node->safe_psql('postgres', "SELECT le_token(5, '$successor')");
	my $beat = "FROM le_keep_alive(5, '$successor', $token)";
	ok( $node->poll_query_until('postgres', "SELECT leads AND waiting $beat"),
		'and is told of the others');

	ok($pgbench->finish, 'the wait is over for all') or diag($said);
	is( $node->safe_psql('postgres', '
			SELECT count(*), count(*) FILTER (WHERE elected), count(token),
				   count(DISTINCT leader_id), min(leader_id)
			  FROM answers'),
		"$crowd|1|1|1|$successor",
		'one is elected, the others are told who leads');
	is(waiting(5), 0, 'no place is left');
	ok( $node->poll_query_until('postgres', "SELECT leads AND NOT waiting $beat"),
		'and the leader knows');
};

# A guarded transaction that hangs at its end, because it waits for a standby
# that does not exist, keeps the lock in share mode: so do heartbeats that are not
# fast, and who waits must not come in between.
subtest 'a guarded commit hangs' => sub {
	my $token = begins(6, 'a', 7000);
	my $guarded = Session->new($node->connstr('postgres'));
	my $pid = $guarded->pid;
	my $beat = "SET lock_timeout = '5s'; SELECT leads FROM le_keep_alive(6, 'a', $token)";
	is($node->safe_psql('postgres', $beat), 't', 'a heartbeat');
	is( $guarded->say("
			BEGIN; SELECT le_guard(6, 'a', $token) = $token;
			INSERT INTO work VALUES ('hangs')"),
		't',
		'guarded');

	$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
	$node->reload;
	my $probe = Session->new($node->connstr('postgres'));
	my $probe_pid = $probe->pid;
	my $hangs = sub {
		my ($hanging) = @_;
		return $node->safe_psql('postgres', "
			SELECT wait_event = 'SyncRep' FROM pg_stat_activity
			 WHERE pid = $hanging") eq 't';
	};
	$probe->send("INSERT INTO work VALUES ('probe')");
	until ($hangs->($probe_pid))
	{
		$node->safe_psql('postgres', $beat);
		$probe->send("INSERT INTO work VALUES ('probe')") if $probe->done;
	}
	my ($waiter) = waiter(6, 'b');
	is($node->safe_psql('postgres', $beat), 't', 'a heartbeat while it waits');
	is( $node->safe_psql('postgres',
			"BEGIN; SELECT le_release(6, 'a', $token); ROLLBACK"),
		't',
		'a release that is rolled back, so the next heartbeat is slow');
	$guarded->send('COMMIT');
	ok( $node->poll_query_until('postgres', "
			SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $pid"),
		'the commit hangs');
	ok( $node->poll_query_until('postgres', "
			SELECT clock_timestamp() > query_start + '1.1 s'
			  FROM pg_stat_activity WHERE pid = $pid"),
		'who waits has looked meanwhile');
	is($node->safe_psql('postgres', $beat), 't', "heartbeat $_")
	  foreach (1 .. 3);

	ok($node->poll_query_until('postgres', 'SELECT le_leader(6) IS NULL'),
		'the leader is silent, its lease runs out');
	is( $node->safe_psql('postgres',
			"SET statement_timeout = '60s'; SELECT elected FROM le_campaign(6, 'c', 7000, 50)"),
		'f', 'whose wait ends while the commit still hangs, is told in time');
	ok( $node->poll_query_until('postgres',
			'SELECT clock_timestamp() > expires_at + $$0.3 s$$
			   FROM leader_lease WHERE id = 6'),
		'and all turns have come');
	is(leader(6), '', 'nobody leads');
	is(waiting(6), 1, 'one waits');

	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$node->reload;
	is($guarded->receive, '', 'the commit ends');
	is($waiter->receive, 't|b', 'who waits leads');
	is( $node->safe_psql('postgres', "SELECT count(*) FROM work WHERE step = 'hangs'"),
		1, 'after what was done');
	$probe->receive;
	$_->quit foreach ($probe, $guarded, $waiter);
};

subtest 'fast shutdown' => sub {
	begins(7, 'a', $long);
	my @waiters = map { [ waiter(7, "b$_") ] } (1 .. 5);
	my $offset = -s $node->logfile;
	$node->stop('fast');
	like(last_words($_->[0]), qr/^FATAL:  57P01/, 'it obeys') foreach (@waiters);
	my $log = slurp_file($node->logfile, $offset);
	is( scalar(
			() = $log =~
			  /FATAL:  terminating connection due to administrator command/g),
		5,
		'the log tells the ordinary');
	unlike($log, qr/ERROR:|WARNING:|PANIC:|server process.*exited/,
		'and no more');
	$node->start;
	is(leader(7), 'a', 'the leader leads');
	is(waiting(7), 0, 'and nobody waits');
};

subtest 'a crash' => sub {
	my $token = begins(8, 'a', $long);
	my ($session, $pid) = waiter(8, 'b');
	my ($other) = waiter(8, 'c');
	kill 'KILL', $pid;
	last_words($_) foreach ($session, $other);
	ok($node->poll_query_until('postgres', 'SELECT true'), 'a restart');
	is(waiting(8), 0, 'nobody waits');
	is( $node->safe_psql('postgres', "
			SELECT leads, waiting FROM le_keep_alive(8, 'a', $token);
			SELECT elected, leader_id FROM le_campaign(8, 'd', $long, 10)"),
		"t|f\nf|a",
		'the leader leads on');
	($session) = waiter(8, 'e');
	is($node->safe_psql('postgres', "SELECT le_release(8, 'a', $token)"),
		't', 'released');
	is($session->receive, 't|e', 'and who waits leads');
	$session->quit;
};

$node->stop;
done_testing();
