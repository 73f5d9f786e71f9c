# leaderctl's commands but run: what each says and its exit status, why nobody
# leads, in a terminal and in a pipe; and that status --watch and watch tell each
# change, through a restart of the server and their own end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Encode qw(decode);
use IO::Pty;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;
use Time::HiRes qw(usleep);

$ENV{LC_ALL} = 'C.UTF-8';
$ENV{TERM} = 'xterm';
delete $ENV{NO_COLOR};

my $long = 600_000;    # outlives the test
my $short = 500;
my $limit = $PostgreSQL::Test::Utils::timeout_default / 3;

my $source = "$FindBin::RealBin/../leaderctl";
my $build = PostgreSQL::Test::Utils::tempdir();
my $leaderctl = "$build/leaderctl";
chomp(my $pg_config = `which pg_config`);
is( system("cp $source/*.[ch] $source/Makefile $build && make -s -C $build PG_CONFIG=$pg_config COPT=-Werror"),
	0, 'leaderctl builds');

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
leader_election.notify = on
leader_election.sweep_interval = 1h
leader_election.promotion_grace = 1h
autovacuum = off
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION leader_election;
	CREATE TABLE probe ();
	CREATE ROLE stranger LOGIN;
	CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
	CREATE DATABASE empty});
my $connstr = $node->connstr('postgres');

# ---------------------------------------------------------------------
# Running it
# ---------------------------------------------------------------------

# Status, what it says, and its messages
sub leaderctl
{
	my ($command, @arguments) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ $leaderctl, $command, '-d', $connstr, @arguments ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($limit));
	return ($? >> 8, $out, $err);
}

sub says
{
	my ($arguments, $status, $expected, $name) = @_;
	my ($is, $out, $err) = leaderctl(@{$arguments});
	is($is, $status, "$name: status $status") or diag("$out$err");
	like("$out$err", $expected, $name);
	return;
}

my @started;

# In the background, in a terminal of so many columns or not
sub start
{
	my ($columns, @command) = @_;
	my $self = { out => '', file => "$build/" . scalar(@started) };
	my $pty;
	if (defined $columns)
	{
		$pty = IO::Pty->new;
		$pty->slave->set_winsize(24, $columns);
	}
	my $pid = fork() // die;
	if ($pid == 0)
	{
		if (defined $pty)
		{
			open(STDOUT, '>&', $pty->slave) or die;
			open(STDIN, '<&', $pty->slave) or die;
			close($pty);
		}
		else
		{
			open(STDOUT, '>', $self->{file}) or die;
		}
		open(STDERR, '>', "$self->{file}.err") or die;
		delete $ENV{PGAPPNAME};    # so that it has a name of its own
		exec($leaderctl, $command[0], '-d', $connstr, @command[ 1 .. $#command ]) or die;
	}
	if (defined $pty)
	{
		$pty->close_slave;
		$pty->blocking(0);
		$self->{pty} = $pty;
	}
	$self->{pid} = $pid;
	push @started, $self;
	return $self;
}

END
{
	local $?;
	kill 'KILL', $_->{pid} foreach grep { !$_->{over} } @started;
}

# All that it has said by now
sub output
{
	my ($self) = @_;
	return -e $self->{file} ? slurp_file($self->{file}) : '' unless $self->{pty};
	while (sysread($self->{pty}, my $part, 65536))
	{
		$self->{out} .= $part;
	}
	return $self->{out};
}

sub messages
{
	my ($self) = @_;
	return -e "$self->{file}.err" ? slurp_file("$self->{file}.err") : '';
}

sub await
{
	my ($name, $condition) = @_;
	my $end = time() + $limit;
	my $met;
	until ($met = $condition->())
	{
		last if time() > $end;
		usleep(10_000);
	}
	ok($met, $name) and return;
	diag(map { "$_->{pid}: " . messages($_) . output($_) } grep { !$_->{over} } @started);
	die "$name: not within $limit s";
}

# Its exit status
sub end_of
{
	my ($self) = @_;
	my $gone = 0;
	await('it ends', sub { output($self); $gone = waitpid($self->{pid}, 1) == $self->{pid} });
	$self->{over} = $gone;
	output($self);
	return $gone ? $? : undef;
}

sub plain
{
	my ($text) = @_;
	return $text =~ s/\e\[[0-9;?]*[A-Za-z]//gr;
}

# How many columns of a terminal this takes
sub width
{
	my ($line) = @_;
	$line = decode('UTF-8', plain($line));
	my $wide = () = $line =~ /\p{East_Asian_Width=Wide}/g;
	return length($line) + $wide;
}

sub widest
{
	my ($text) = @_;
	my ($widest) = sort { $b <=> $a } map { width($_) } split /\r?\n/, $text;
	return $widest;
}

# The row of a lock
sub row
{
	my ($lock, $text) = @_;
	my ($row) = $text =~ /^($lock .*?)\r?$/m;
	return $row // "no row of lock $lock in $text";
}

sub query
{
	my ($sql, $expected, $name) = @_;
	is($node->safe_psql('postgres', $sql), $expected, $name);
	return;
}

# Let commits hang for want of a standby, this one too: returns the
# session that shows it, and the server process of this one.
sub hang
{
	my ($session, $sql) = @_;
	my $pid = $session->pid;
	$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
	$node->reload;
	my $probe = Session->new($connstr);
	$probe->send('INSERT INTO probe DEFAULT VALUES');
	await('commits hang', sub {
			$probe->send('INSERT INTO probe DEFAULT VALUES') if $probe->done;
			$node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") });
	$session->send($sql);
	ok( $node->poll_query_until('postgres',
			"SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $pid"),
		'one waits for a standby');
	return ($probe, $pid);
}

sub let_go
{
	my ($session, $probe) = @_;
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$node->reload;
	$session->receive;
	$probe->receive;
	return;
}

# ---------------------------------------------------------------------
# Wrong from the start
# ---------------------------------------------------------------------

subtest 'wrong arguments' => sub {
	foreach my $case (
		[ ['statsu'], qr/unrecognized command "statsu"/ ],
		[ [ 'status', '--format', 'xml' ], qr/"xml" is neither "table" nor "json"/ ],
		[ [ 'status', '--lock', 'a b' ], qr/neither a number nor a name/ ],
		[ [ 'status', 'nightly' ], qr/too many command-line arguments/ ],
		[ [ 'history', '--limit', '0' ], qr/outside the range/ ],
		[ ['resign'], qr/no lock was given/ ],
		[ [ 'release', '-l', 1 ], qr/needs --instance and --token/ ],
		[ [ 'transfer', '-l', 1, '--instance', 'a', '--token', 'x' ], qr/"x" is not a number/ ],
		[ [ 'transfer', '-l', 1, '--instance', 'a', '--token', '0' ], qr/outside the range 1 to 9223372036854775807/ ],
		[ [ 'transfer', '-l', 1, '--instance', 'a', '--token', '9999999999999999999' ], qr/outside the range 1 to/ ],
		[ [ 'release', '-l', 1, '--instance', 'a', '--token', 1, '--hold', '0.5ms' ], qr/--hold 0.5ms is shorter than a millisecond/ ],
		[ [ 'watch', '-l', 1 ], qr/no command to run was given/ ],
		[ [ 'status', '-d', $node->connstr('empty') ], qr/has no extension leader_election/ ],
		[ [ 'warnings', '-d', 'port=1 host=/nowhere' ], qr/connection to server/ ])
	{
		my ($arguments, $expected) = @{$case};
		says($arguments, 2, $expected, "@{$arguments}");
	}
};

subtest 'grants' => sub {
	foreach my $case (
		[ [ 'status' ], 'pg_monitor' ],
		[ [ 'history' ], 'pg_monitor' ],
		[ [ 'warnings' ], 'pg_monitor' ],
		[ [ 'resign', '-l', 1 ], 'le_request_resign' ],
		[ [ 'revoke', '-l', 1 ], 'le_revoke' ],
		[ [ 'transfer', '-l', 1, '--instance', 'a', '--token', 1 ], 'le_transfer' ],
		[ [ 'release', '-l', 1, '--instance', 'a', '--token', 1 ], 'le_release' ],
		[ [ 'watch', '-l', 1, 'true' ], 'le_observe' ])
	{
		my ($arguments, @missing) = @{$case};
		my ($command, @rest) = @{$arguments};
		my ($status, $out, $err) = leaderctl($command, '-U', 'stranger', @rest);
		is($status, 2, "$command: status 2");
		is(join(' ', $err =~ /GRANT (?:(?:SELECT|EXECUTE) ON (?:FUNCTION )?public\.)?(\w+) TO stranger;/g), "@missing",
			'says what is missing');
	}
	says([ 'status', '-U', 'monitor' ], 0, qr/no lock is led/, 'pg_monitor has what it takes');
	says([ 'status', '-U', 'monitor', '--watch', '-l', 1 ], 2, qr/GRANT EXECUTE ON FUNCTION public\.le_observe/,
		'but for --watch of one lock');
};

# ---------------------------------------------------------------------
# Others' names and operators
# ---------------------------------------------------------------------

subtest 'a role whose search_path has others\' operators first' => sub {
	$node->safe_psql('postgres', q{
		CREATE SCHEMA evil;
		CREATE FUNCTION evil.caught() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$;
		CREATE ROLE hasty SUPERUSER LOGIN;
		ALTER ROLE hasty SET search_path = evil, pg_catalog, public});
	foreach my $type (qw(name oid text bigint integer "char" boolean timestamptz))
	{
		$node->safe_psql('postgres', qq{
			CREATE OR REPLACE FUNCTION evil.caught($type, $type) RETURNS boolean LANGUAGE sql AS 'SELECT evil.caught()';
			CREATE OPERATOR evil.$_ (FUNCTION = evil.caught, LEFTARG = $type, RIGHTARG = $type)}) foreach qw(= <> < > <= >=);
	}
	my (undef, undef, $caught) = $node->psql('postgres', "SELECT 'a'::name = 'b'::name", extra_params => [ '-U', 'hasty' ]);
	like($caught, qr/caught/, 'which is so');
	foreach my $arguments (
		['status'], [ 'status', '--lock', 1 ], [ 'status', '--format', 'json' ], ['history'], ['warnings'],
		[ 'resign', '-l', 1 ], [ 'revoke', '-l', 1 ],
		[ 'transfer', '-l', 1, '--instance', 'a', '--token', 1 ], [ 'release', '-l', 1, '--instance', 'a', '--token', 1 ],
		[ 'run', '-l', 1, '--once', '--yield', '--', 'true' ])
	{
		my ($command, @rest) = @{$arguments};
		my ($status, $out, $err) = leaderctl($command, '-U', 'hasty', @rest);
		unlike("$out$err", qr/caught/, "@{$arguments}");
	}
	my $watch = start(undef, 'watch', '-U', 'hasty', '-l', 1, '--', 'sh', '-c', "echo told >> $build/hasty");
	await('watch', sub { -e "$build/hasty" || messages($watch) =~ /caught/ });
	unlike(messages($watch), qr/caught/, 'watch');
	kill 'TERM', $watch->{pid};
	is(end_of($watch), 0, 'status 0');
	$node->safe_psql('postgres', 'DELETE FROM le_term');
};

subtest 'what a terminal would obey' => sub {
	query(qq{SELECT le_try_acquire(2, E'a\\x1b[31m\\u009b31m\\u00e4', $long)}, 't', 'a leader with a name');
	my ($status, $out, $err) = leaderctl('revoke', '--immediately', '-l', 2);
	is($status, 0, 'is revoked');
	like($err, qr/"a\?\[31m\?\?31m\xc3\xa4"/, 'the hint has no control characters');
	$node->safe_psql('postgres', 'SELECT le_sweep(0); DELETE FROM le_term');
};

# ---------------------------------------------------------------------
# Standard files, full or closed
# ---------------------------------------------------------------------

subtest 'standard files' => sub {
	foreach my $arguments ("status -d '$connstr'", "history -d '$connstr' --format json", '--help', 'run --help', '--version')
	{
		foreach my $to ('>/dev/full', '>&-', '<&- >&-')
		{
			my $err = `$leaderctl $arguments 2>&1 $to`;
			is($? >> 8, 1, "$arguments $to: status 1");
			like($err, qr/could not write to the standard output/, 'which is said') if $to !~ />&-/;
		}
	}
	is(system("$leaderctl run -d '$connstr' -l 3 --once -- sh -c 'exit 7' <&- >&- 2>&-") >> 8, 7, 'run without any of them');
	is(system("$leaderctl status -d '$connstr' >/dev/null 2>&-"), 0, 'status without an error output');
	unlike(slurp_file($node->logfile), qr/invalid frontend message/, 'nothing of it was sent to the server');
	$node->safe_psql('postgres', 'DELETE FROM le_term');
};

# ---------------------------------------------------------------------
# Operators and leaders
# ---------------------------------------------------------------------

subtest 'resign, revoke, transfer, release' => sub {
	says([ 'resign', '-l', 1 ], 1, qr/nobody leads lock 1/, 'nobody to ask');
	query("SELECT le_try_acquire(1, 'a', $long)", 't', 'a leader');
	says([ 'resign', '-l', 1 ], 0, qr/has asked the leader of lock 1 to resign/, 'asked');
	query("SELECT resign_requested FROM le_keep_alive(1, 'a', le_token(1, 'a'))", 't', 'and told');

	my $token = $node->safe_psql('postgres', "SELECT le_token(1, 'a')");
	says([ 'transfer', '-l', 1, '--instance', 'a', '--token', $token ], 1, qr/nobody waits for lock 1/,
		'transfer to nobody');
	says([ 'transfer', '-l', 1, '--instance', 'b', '--token', $token ], 1, qr/"b" does not lead lock 1 in term $token/,
		'transfer by another');
	$node->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION le_transfer TO stranger');
	says([ 'transfer', '-l', 1, '-U', 'stranger', '--instance', 'b', '--token', $token ], 1,
		qr/nobody waits for lock 1, or "b" does not lead it/, 'not known which of the two');
	says([ 'transfer', '-l', 1, '--instance', 'a', '--token', $token, '--successor', 'b' ], 0,
		qr/has handed lock 1 over to "b"/, 'transfer by name');
	query('SELECT le_leader(1)', 'b', 'who leads then');
	says([ 'release', '-l', 1, '--instance', 'a', '--token', $token ], 1, qr/"a" does not lead lock 1/, 'an old term');
	$token = $node->safe_psql('postgres', "SELECT le_token(1, 'b')");
	says([ 'release', '-l', 1, '--instance', 'b', '--token', $token, '--hold', '1h' ], 0,
		qr/released lock 1: nobody leads before the term is 1h old/, 'release with a hold');
	query("SELECT le_try_acquire(1, 'c')", 'f', 'which holds');
	says([ 'revoke', '-l', 1 ], 1, qr/nobody leads lock 1/, 'nothing to revoke');
	says([ 'revoke', '-l', 1, '--immediately' ], 0, qr/others may lead at once/, 'lifted');
	says([ 'revoke', '-l', 1, '--immediately' ], 1, qr/nothing keeps anybody from lock 1/, 'once');

	query("SELECT le_try_acquire(1, 'c', $long)", 't', 'a leader');
	my ($status, $out, $err) = leaderctl('revoke', '-l', 1, '--immediately');
	is($status, 0, 'revoked at once');
	like($err, qr/^leaderctl: warning: whoever led lock 1 may believe so for another \d+ ms\nleaderctl: hint: Make sure that instance "c" has stopped\./m,
		'with the server\'s warning');
	query("SELECT le_try_acquire(1, 'd', $long)", 't', 'others may lead');
	says([ 'revoke', '-l', 1 ], 0, qr/others may lead when the lease would have run out/, 'revoked');
	query("SELECT le_try_acquire(1, 'c', $long)", 'f', 'others may not');

	$node->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION le_release TO stranger');
	query("SELECT le_try_acquire(2, 'a', $long)", 't', 'a leader');
	says([ 'release', '-l', 2, '-U', 'stranger', '--instance', 'a', '--token', 1 ], 1, qr/does not lead/, 'of another term');
	$token = $node->safe_psql('postgres', "SELECT le_token(2, 'a')");
	says([ 'release', '-l', 2, '-U', 'stranger', '--instance', 'a', '--token', $token ], 1,
		qr/error: lock 2 is held by instance "a" of another role\nleaderctl: hint: /, 'an error of the server');
	says([ 'release', '-l', 2, '--instance', 'a', '--token', $token ], 0, qr/has released lock 2/, 'released');
};

# ---------------------------------------------------------------------
# status
# ---------------------------------------------------------------------

my $evil = "evil \e[31m\x{7}\n\x{c2}\x{9b}31m \x{e6}\x{bc}\x{a2}\x{e5}\x{ad}\x{97} " . ("\x{e6}\x{bc}\x{a2}" x 20);

# Lock L says why nobody leads, in the table, by itself and in JSON.
sub explained
{
	my ($lock, $state, $short_text, $text, $code, @options) = @_;
	subtest "$code" => sub {
		my ($status, $out) = leaderctl('status', @options);
		like(row($lock, $out), qr/^$lock +\(\Q$short_text\E\) +$state /, 'in the table');
		($status, $out) = leaderctl('status', '--lock', $lock, @options);
		is($status, 3, 'status 3: nobody leads');
		like($out, qr/^state: $state\nleader: nobody\nwhy: $text/m, 'in a sentence');
		($status, $out) = leaderctl('status', '--lock', $lock, '--format', 'json', @options);
		is($status, 3, 'status 3');
		my $lock_json = decode_json($out);
		is_deeply([ @{$lock_json}{ 'reason', 'leader', 'token' } ], [ $code, undef, undef ], 'in JSON');
		return $lock_json;
	};
	return;
}

subtest 'why nobody leads' => sub {
	my $session = Session->new($connstr);

	query("SELECT le_try_acquire(11, 'a', 1)", 't', 'a short term');
	ok($node->poll_query_until('postgres', 'SELECT le_leader(11) IS NULL'), 'is over');
	explained(11, 'expired', 'nobody asks for it', 'nobody asks for it', 'nobody_asks');
	query("SELECT le_try_acquire(12, 'a', $long), le_release(12, 'a')", 't|t', 'led, and released');
	explained(12, 'vacant', 'nobody asks for it', 'nobody asks for it', 'nobody_asks');
	query("SELECT le_try_acquire(13, 'a', $long), le_release(13, 'a', hold_ms => 7200000)", 't|t', 'a hold');
	explained(13, 'held', 'a hold', 'a hold: .*\nleft: 1h\nlast leader: a\nended: .* ago: released\n', 'hold');
	query("SELECT le_try_acquire(14, 'a', $long)", 't', 'a leader');
	query('SELECT le_revoke(14)', 't', 'is revoked');
	explained(14, 'revoked', 'revoked', 'revoked: until then the old leader .*\nleft: \d+min\n', 'revocation');
	explained(14, 'revoked', 'revoked', 'revoked: not yet may who led lead, nor perhaps others\n', 'revoked', '-U', 'monitor');
	query("SELECT le_try_acquire(15, 'a', $long)", 't', 'a leader');
	query('SELECT le_revoke(15, true)', 't', 'is revoked at once');
	explained(15, 'revoked', 'revoked: others may lead', 'revoked: others may lead', 'ban');

	# a lock that somebody keeps from all others
	is($session->say("SET leader_election.allow_in_transaction = on; BEGIN; SELECT le_try_acquire(16, 'a', $long)"), 't', 'a term in a block');
	my $pid = $session->pid;
	explained(16, 'vacant', 'being begun or ended', "an open transaction begins or ends a term: server process $pid\n", 'transition');
	$session->say('ROLLBACK');
	is($session->say("SELECT le_try_acquire(16, 'a', $long); BEGIN; SELECT le_release(16, 'a')"), "t\nt", 'a release that is open');
	says([ 'status', '-l', 16 ], 0, qr/^state: live\nleader: a\nunder way: an open transaction begins or ends a term: server process $pid\n/m,
		'while the old leader leads still');
	$session->say('ROLLBACK');

	my ($probe) = hang($session, "SELECT le_try_acquire(17, 'a', $long)");
	explained(17, 'vacant', 'awaits the standby', "a commit that begins or ends a term awaits a standby: server process $pid\n", 'awaits_standby');
	let_go($session, $probe);
	says([ 'status', '-l', 17 ], 0, qr/^leader: a\n/m, 'then it leads');

	is($session->say("SELECT le_try_acquire(18, 'a', $short); BEGIN; SELECT le_guard(18, 'a') > 0; INSERT INTO probe DEFAULT VALUES"),
		"t\nt", 'a guarded transaction');
	($probe) = hang($session, 'COMMIT');
	ok($node->poll_query_until('postgres', 'SELECT le_leader(18) IS NULL'), 'outlives its lease');
	explained(18, 'expired', 'a commit is guarded', "a guarded transaction is being committed: server process $pid\n", 'guarded_commit');
	let_go($session, $probe);
	explained(18, 'expired', 'nobody asks for it', 'nobody asks for it', 'nobody_asks');

	# An operator who gives up has changed nothing, now and later.
	is($session->say("SELECT le_try_acquire(19, 'a', $long); BEGIN; SELECT le_guard(19, 'a') > 0; INSERT INTO probe DEFAULT VALUES"),
		"t\nt", 'another guarded transaction');
	($probe) = hang($session, 'COMMIT');
	my $revoke = start(undef, 'revoke', '-l', 19);
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"),
		'is waited for by a revocation');
	kill 'INT', $revoke->{pid};
	is(end_of($revoke), 1 << 8, 'interrupted');
	like(messages($revoke), qr/canceling statement due to user request/, 'cancelled');
	let_go($session, $probe);
	query('SELECT le_leader(19)', 'a', 'and nobody was revoked');
	$session->quit;
};

my $waiter;
subtest 'who leads' => sub {
	my $name = $evil =~ s/'/''/gr;
	query("SELECT elected FROM le_campaign(le_lock_id('nightly'), 'node-a', $long, info => E'10.0.0.1:5432\\n\\x1b[31m')", 't', 'a leader by name');
	query("SELECT le_try_acquire(-9223372036854775808, '$name', $long)", 't', 'a leader of a name that nobody should see as it is');
	$waiter = Session->new($connstr);
	$waiter->send("SELECT elected FROM le_campaign(le_lock_id('nightly'), 'node-b', $long, wait_ms => 60000, priority => 7)");
	ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM leader_waiting'), 'one waits');
	my ($id, $token) = split /\|/, $node->safe_psql('postgres', "SELECT le_lock_id('nightly'), le_token(le_lock_id('nightly'), 'node-a')");

	my ($status, $out) = leaderctl('status', '--lock', 'nightly');
	is($status, 0, 'status 0: somebody leads');
	like($out, qr/\Alock: nightly \($id\)\nstate: live\nleader: node-a\nrole: \w+\ninfo: 10\.0\.0\.1:5432\\x0a\\x1b\[31m\ntoken: $token\nbegan: .*ago\nleft: 1[01]min of 10min\nwaiting: node-b, priority 7, for 00:00:\d\d\n\z/,
		'one lock, a value a line');
	($status, $out) = leaderctl('status', '--lock', 'nightly', '--format', 'json');
	my $json = decode_json($out);
	is_deeply([ sort keys %{$json} ], [ sort qw(lock name state reason leader role info token lease_ms remaining_ms began renewed
				renewals waiting last_leader last_ended last_ended_how) ], 'JSON: its keys');
	is_deeply([ @{$json}{qw(lock name state reason leader info token lease_ms)}, $json->{waiting}[0]{instance}, $json->{waiting}[0]{priority} ],
		[ $id, 'nightly', 'live', undef, 'node-a', "10.0.0.1:5432\n\e[31m", $token, $long, 'node-b', 7 ], 'JSON: its values');

	($status, $out) = leaderctl('status');
	is($status, 0, 'all locks: status 0');
	like(row($id, $out), qr/^$id +node-a +$token +live +1[01]min +[\d.]+s +1$/, 'a row');
	unlike($out, qr/[^\n\x20-\x{ff}]/, 'nothing that a terminal would obey');
	unlike($out, qr/\x{c2}[\x{80}-\x{9f}]/, 'nor of those above ASCII');
	is(widest($out), 80, '80 columns');
	like(row('-9223372036854775808', $out), qr/evil .*\x{e2}\x{80}\x{a6} +\d+ +live/, 'a long name is cut, and shown to be');
	unlike($out, qr/\e/, 'no colour in a pipe');
	is(scalar(() = $out =~ /\n/g), 1 + @{ decode_json((leaderctl('status', '--format', 'json'))[1]) }, 'a line for a lock');
	($status, $out) = leaderctl('status', '--format', 'json');
	unlike($out, qr/[^\n\x20-\x{7e}\x{80}-\x{ff}]|\x{c2}[\x{80}-\x{9f}]/, 'JSON has no control characters');
	my ($of_evil) = grep { $_->{lock} eq '-9223372036854775808' } @{ decode_json($out) };
	is($of_evil->{leader}, decode('UTF-8', $evil), 'and says what the name is');
	{
		local $ENV{LC_ALL} = 'C';
		($status, $out) = leaderctl('status');
		unlike($out, qr/[^\n\x20-\x7e]/, 'only ASCII where there is nothing else');
	}
};

subtest 'in a terminal' => sub {
	my $terminal = start(80, 'status');
	is(end_of($terminal), 0, 'status 0');
	my $out = output($terminal);
	cmp_ok(widest($out), '<=', 80, 'fits');
	like($out, qr/\e\[32mlive *\e\[0m/, 'with colour');
	$terminal = start(120, 'status');
	is(end_of($terminal), 0, 'status 0');
	cmp_ok(widest(output($terminal)), '>', 80, 'uses what room there is');
	foreach my $setting ([ NO_COLOR => 1 ], [ TERM => 'dumb' ])
	{
		local $ENV{ $setting->[0] } = $setting->[1];
		$terminal = start(80, 'status');
		is(end_of($terminal), 0, 'status 0');
		like(output($terminal), qr/live/, "@{$setting}: all is there");
		unlike(output($terminal), qr/\e/, 'without colour');
	}
	$terminal = start(80, 'history');
	is(end_of($terminal), 0, 'status 0');
	cmp_ok(widest(output($terminal)), '<=', 80, 'history fits');
};

# ---------------------------------------------------------------------
# history, warnings
# ---------------------------------------------------------------------

subtest 'history' => sub {
	my ($status, $out) = leaderctl('history', '--lock', 1);
	is($status, 0, 'status 0');
	my (undef, @rows) = split /\n/, $out;
	is(join(' ', map { (split)[ 3, 4 ] } @rows), 'd revoked c revoked b released a transferred', 'the latest first');
	my $user = $node->safe_psql('postgres', 'SELECT current_user');
	like($rows[-1], qr/^1 +[\d:-]+ +[\d.]+s +a +transferred +$user +1 +1[01]min$/, 'when, how long, who, by whom, renewals, least left');
	($status, $out) = leaderctl('history', '--limit', 2, '--format', 'json');
	is($status, 0, 'status 0');
	my $json = decode_json($out);
	is(scalar(@{$json}), 2, 'as many as asked for');
	is_deeply([ sort keys %{ $json->[0] } ],
		[ sort qw(lock instance token role lease_ms began ended ended_how ended_by renewals least_left_ms) ], 'JSON: its keys');
	is($json->[0]{ended} gt $json->[1]{ended}, 1, 'the latest first');
	cmp_ok(widest((leaderctl('history'))[1]), '<=', 80, '80 columns');

	# the widest that there can be
	my $view = $node->safe_psql('postgres', "SELECT pg_get_viewdef('leader_history')");
	my $columns = $node->safe_psql('postgres', q{
		SELECT string_agg(CASE attname WHEN 'lock_id' THEN '-9223372036854775807 AS lock_id'
							WHEN 'began' THEN $$began - interval '9 days 20 h' AS began$$
							WHEN 'ended' THEN $$ended - interval '9 days' AS ended$$
							ELSE quote_ident(attname) END, ', ' ORDER BY attnum)
		  FROM pg_attribute WHERE attrelid = 'leader_history'::regclass AND attnum > 0});
	$node->safe_psql('postgres', "CREATE OR REPLACE VIEW leader_history AS SELECT $columns FROM (" . $view =~ s/;$//r . ') h');
	($status, $out) = leaderctl('history');
	like($out, qr/^-9223372036854775807 +\d\d-\d\d \d\d:\d\d /m, 'a long id, of another day');
	cmp_ok(widest($out), '<=', 80, '80 columns');
	$node->safe_psql('postgres', "CREATE OR REPLACE VIEW leader_history AS $view");
};

subtest 'warnings' => sub {
	my ($status, $out) = leaderctl('warnings');
	is($status, 1, 'status 1: there is one');
	is($out, "fsync is off\n", 'which is said');
	$node->append_conf('postgresql.conf', 'fsync = on');
	$node->reload;
	ok($node->poll_query_until('postgres', "SELECT warnings = '{}' FROM le_info()"), 'mended');
	($status, $out) = leaderctl('warnings');
	is("$status$out", '0', 'status 0, nothing said');
	$node->append_conf('postgresql.conf', 'fsync = off');
	$node->reload;
};

# ---------------------------------------------------------------------
# status --watch
# ---------------------------------------------------------------------

# What the screen shows now: what came after the cursor went home last
sub screen
{
	my ($self) = @_;
	my @screens = split /\e\[H/, output($self);
	return plain($screens[-1] // '');
}

my @watches;
subtest 'status --watch' => sub {
	query("SELECT le_try_acquire(31, 'a', $long)", 't', 'a leader');
	query("SELECT le_try_acquire(32, 'a', 99000)", 't', 'another');
	query('SELECT le_revoke(1, true), le_revoke(14, true)', 't|t', 'nothing that ends soon');
	$node->safe_psql('postgres', 'SELECT le_sweep(0)');
	my $all = start(80, 'status', '--watch');
	my $one = start(80, 'status', '--watch', '--lock', 31);
	my $pipe = start(undef, 'status', '--watch', '--lock', 31);
	my $json = start(undef, 'status', '--watch', '--lock', 31, '--format', 'json');
	@watches = ($all, $one, $pipe, $json);

	await('all locks', sub { row(31, screen($all)) =~ /^31 +a / });
	await('one lock', sub { screen($one) =~ /leader: a/ });
	await('one lock, not in a terminal', sub { output($pipe) =~ /^leader: a$/m });
	await('as JSON', sub { output($json) =~ /\n/ });

	# it counts down by itself: four seconds and more, with no question but le_observe()
	my $asked;
	my %left;
	await('the time of a term goes on', sub {
			my $at = $node->safe_psql('postgres', "SELECT max(query_start) FROM pg_stat_activity
				WHERE application_name = 'leaderctl status' AND query LIKE 'WITH info%'");
			%left = () if defined $asked && $asked ne $at;
			$asked = $at if $at ne '';
			$left{$1} = 1 if row(32, screen($all)) =~ / (\d+)s +\d+$/;
			return defined $asked && keys %left >= 4 });

	query("SELECT le_transfer(31, 'a', le_token(31, 'a'), 'b')", 't', 'a change');
	await('is shown', sub { row(31, screen($all)) =~ /^31 +b / });
	await('of one lock', sub { screen($one) =~ /leader: b/ });
	await('in a new snapshot', sub { output($pipe) =~ /^leader: a\n.*^leader: b\n/ms });
	await('in a new line', sub { (output($json) =~ tr/\n//) == 2 });
	my @lines = split /\n/, output($json);
	is(join(' ', map { decode_json($_)->{leader} } @lines), 'a b', 'which are JSON each');
	unlike(output($pipe), qr/\e/, 'no escape sequences but in a terminal');

	cmp_ok(widest(join("\n", map { split /\e\[K/ } split /\e\[H/, output($all))), '<=', 80, '80 columns');
	$all->{pty}->set_winsize(24, 120);
	kill 'WINCH', $all->{pid};
	await('a wider terminal is used', sub { widest(screen($all)) > 80 });

	$node->restart;
	$waiter = undef;
	await('the restart is told', sub { messages($pipe) =~ /error: / });
	query("SELECT le_leader(31), le_transfer(31, 'b', le_token(31, 'b'), 'c')", 'b|t', 'another change');
	await('is shown', sub { row(31, screen($all)) =~ /^31 +c / });
	await('of one lock', sub { screen($one) =~ /leader: c/ });
	await('in a new snapshot', sub { output($pipe) =~ /^leader: c$/m });
	await('in a new line', sub { output($json) =~ /"leader" : "c"/ });
	is(scalar(grep { !/^\{.*\}$/ } split /\n/, output($json)), 0, 'one line each');

	foreach my $watch (@watches)
	{
		kill $watch == $pipe ? 'INT' : 'TERM', $watch->{pid};
		is(end_of($watch), 0, 'ends with status 0');
	}
	like(output($all), qr/\A\e\[\?1049h\e\[\?25l\e\[\?7l.*\e\[\?7h\e\[\?25h\e\[\?1049l/s,
		'cuts long lines, and leaves the terminal as it was');
	foreach my $signal (qw(HUP QUIT INT))
	{
		my $watch = start(80, 'status', '--watch');
		await('another one', sub { screen($watch) =~ /^31 +/m });
		kill $signal, $watch->{pid};
		is(end_of($watch), 0, "ends with status 0 at SIG$signal");
		like(output($watch), qr/\e\[\?7h\e\[\?25h\e\[\?1049l/, 'and leaves the terminal as it was');
	}
	like(output($all) =~ s/.*\e\[\?1049l//sr, qr/^31 +c /m, 'and what it has shown last');

	$node->append_conf('postgresql.conf', 'leader_election.notify = off');
	$node->reload;
	ok($node->poll_query_until('postgres', "SELECT NOT current_setting('leader_election.notify')::bool FROM le_info()"), 'no events');
	my $looks = start(undef, 'status', '--watch');
	await('which is said', sub { output($looks) =~ /leader_election\.notify is off, so this looks every 2 s/ });
	query("SELECT le_transfer(31, 'c', le_token(31, 'c'), 'd')", 't', 'a change');
	await('is seen nevertheless', sub { output($looks) =~ /^31 +d /m });
	kill 'TERM', $looks->{pid};
	is(end_of($looks), 0, 'status 0');
};

# ---------------------------------------------------------------------
# watch
# ---------------------------------------------------------------------

# A command that notes what it is told, and whether the server is there
my $note = "$build/note";
append_to_file($note, <<'SH');
#!/bin/sh
exec 3>> "$1"
if [ "$2" = deaf ]; then trap '' TERM; else trap 'echo terminated >&3; exit 1' TERM; fi
psql -XAtc 'SELECT 1' > /dev/null 2>&1 && server=up || server=down
echo "$LEADER_LOCK,$LEADER_ID,$LEADER_TOKEN,$LEADER_INFO,$server,$PGOPTIONS" >&3
[ "$2" != fails ] || exit 7
while [ -e "$1.hold" ]; do sleep 0.02; done
SH
chmod 0755, $note;

sub notes
{
	my ($name) = @_;
	my @notes = -e "$build/$name" ? split /\n/, slurp_file("$build/$name") : ();
	return @notes;
}

sub campaign
{
	my ($lock, $instance) = @_;
	return $node->safe_psql('postgres', "SELECT token FROM le_campaign($lock, '$instance', $long, info => 'at $instance')");
}

# All these who watch lock 41 know who leads it now: they have asked since it
# changed, and wait.
sub all_know
{
	my ($count) = @_;
	ok( $node->poll_query_until('postgres', "
			SELECT count(*) = $count AND bool_and(wait_event_type = 'Extension' AND query_start >
				   GREATEST((SELECT max(created_at) FROM leader_lease WHERE id = 41),
							(SELECT max(ended) FROM leader_history WHERE lock_id = 41)))
			  FROM pg_stat_activity WHERE application_name = 'leaderctl watch'"),
		'which all know');
	return;
}

my $deaf;
subtest 'watch' => sub {
	local $ENV{PGOPTIONS} = '-c work_mem=1MB';
	my $watch = start(undef, 'watch', '-l', 41, '--', $note, "$build/w");
	my $fails = start(undef, 'watch', '-l', 41, '--', $note, "$build/f", 'fails');
	await('nobody leads', sub { notes('w') == 1 });
	is((notes('w'))[0], '41,,,,up,', 'as the command is told, which can connect');
	my $token = campaign(41, 'a');
	await('a leader', sub { notes('w') == 2 });
	is((notes('w'))[1], "41,a,$token,at a,up,", 'who it is');

	append_to_file("$build/w.hold", '');
	query("SELECT le_transfer(41, 'a', $token, 'b')", 't', 'a change');
	my $token_b = $node->safe_psql('postgres', "SELECT le_token(41, 'b')");
	await('a successor', sub { notes('w') == 3 });
	query("SELECT le_transfer(41, 'b', $token_b, 'c')", 't', 'what changes while the command runs');
	query("SELECT le_release(41, 'c')", 't', 'and again');
	my $token_d = campaign(41, 'd');
	all_know(2);
	is(scalar(notes('w')), 3, 'is not told now');
	unlink "$build/w.hold";
	await('is told when it has ended', sub { notes('w') == 4 });
	is((notes('w'))[3], "41,d,$token_d,at d,up,", 'and only the latest');
	like(messages($fails), qr/error: the command has failed with status 7\n/, 'a command that fails is told, and the watching goes on');

	# a command runs while the server goes, and there is news that nobody can know to be true
	append_to_file("$build/w.hold", '');
	query("SELECT le_transfer(41, 'd', $token_d, 'e')", 't', 'a change');
	await('which is told', sub { notes('w') == 5 });
	query("SELECT le_release(41, 'e')", 't', 'another one');
	all_know(2);
	await('the other command has looked for the server', sub { (notes('f'))[-1] =~ /^41,,,,/ });
	$node->stop;
	await('the server is gone', sub { messages($watch) =~ /error: / && messages($fails) =~ /refused|No such file/ });
	unlink "$build/w.hold";
	await('the command ends', sub { !`pgrep -P $watch->{pid}` });
	await('there is nobody to ask', sub { messages($watch) =~ /refused|No such file/ });
	is(scalar(notes('w')), 5, 'nothing is run meanwhile');
	$node->start;
	await('what happened meanwhile is told', sub { notes('w') == 6 });
	is((notes('w'))[5], '41,,,,up,', 'as it is now');
	is(scalar(grep { /down/ } notes('w'), notes('f')), 0, 'nothing was run without the server');

	append_to_file("$build/w.hold", '');
	$token = campaign(41, 'f');
	await('a command runs', sub { notes('w') == 7 });
	kill 'TERM', $watch->{pid};
	is(end_of($watch), 0, 'told to stop: status 0');
	is((notes('w'))[-1], 'terminated', 'the command was told, too, and is gone');
	kill 'INT', $fails->{pid};
	is(end_of($fails), 0, 'without a command: status 0');

	my $killed = start(undef, 'watch', '-l', 41, '--', $note, "$build/w");
	await('another one runs a command', sub { notes('w') == 9 });
	kill 'KILL', $killed->{pid};
	is(end_of($killed), 9, 'is killed');
	await('its command is told to end', sub { notes('w') == 10 });
	is((notes('w'))[-1], 'terminated', 'as it notes');

	append_to_file("$build/h.hold", '');
	my $hung_up = start(undef, 'watch', '-l', 41, '--', $note, "$build/h");
	await('another one', sub { notes('h') == 1 });
	kill 'HUP', $hung_up->{pid};
	is(end_of($hung_up), 0, 'its terminal is closed: status 0');
	is((notes('h'))[-1], 'terminated', 'the command was told, too');

	append_to_file("$build/d.hold", '');
	$deaf = start(undef, 'watch', '-l', 41, '--', $note, "$build/d", 'deaf');
	await('one that does not listen', sub { notes('d') == 1 });
	kill 'TERM', $deaf->{pid};
};

# A server that ends what takes long ends no wait: it is shorter.
subtest 'a time-out of the role' => sub {
	$node->safe_psql('postgres', q{CREATE ROLE brief SUPERUSER LOGIN; ALTER ROLE brief SET statement_timeout = '700ms'});
	query("SELECT le_try_acquire(42, 'a', $long)", 't', 'a leader');
	my @all = (
		start(undef, 'watch', '-U', 'brief', '-l', 42, '--', $note, "$build/brief"),
		start(undef, 'status', '-U', 'brief', '--watch', '-l', 42),
		start(undef, 'run', '-U', 'brief', '-l', 42, '--', $note, "$build/leads"));
	my $log = -s $node->logfile;
	foreach my $call (qw(le_observe le_campaign))
	{
		await("many waits in $call()", sub {
				(() = slurp_file($node->logfile, $log) =~ /execute .*: SELECT .*$call\(/g) > 6 });
	}
	is(join('', map { messages($_) } @all), qq{leaderctl: lock 42 is led by "a", token @{[ $node->safe_psql('postgres', "SELECT le_token(42, 'a')") ]}\n},
		'no complaint');
	query("SELECT le_release(42, 'a')", 't', 'a change');
	await('who waits leads', sub { notes('leads') == 1 });
	kill 'TERM', $_->{pid} foreach @all;
	is(end_of($_), 0, 'status 0') foreach @all;
};

# ---------------------------------------------------------------------
# A standby, and its promotion
# ---------------------------------------------------------------------

subtest 'a standby' => sub {
	$node->append_conf('postgresql.conf', "leader_election.notify = on");
	$node->stop;
	$node->append_conf('standby.signal', '');
	$node->start;
	says([ 'resign', '-l', 41 ], 2, qr/the server is a standby/, 'resign');
	says([ 'watch', '-l', 41, 'true' ], 2, qr/the server is a standby/, 'watch');
	says([ 'run', '-l', 41, '--', 'true' ], 2, qr/the server is a standby\n.*name all hosts: --host a,b/, 'run');
	my ($status, $out) = leaderctl('status', '-l', 31);
	is($status, 3, 'status 3: nobody is known to lead');
	like($out, qr/^state: standby\nleader: unknown\nwhy: this server is a standby, which cannot tell who leads now\n.*^last leader: d\nwaiting: a standby cannot tell\n/ms,
		'what is known is said');
	is(decode_json((leaderctl('status', '-l', 31, '--format', 'json'))[1])->{waiting}, undef, 'JSON: who waits is not known');
	like(row(31, (leaderctl('status'))[1]), qr/^31 +\(a standby cannot tell\) +standby +- +\d\S* +\?$/, 'in the table');
	says([ 'history', '-l', 1 ], 0, qr/^1 .*transferred/m, 'history');
	says([ 'warnings' ], 1, qr/^fsync is off$/m, 'warnings');
	my $watch = start(undef, 'status', '--watch');
	await('it can be watched', sub { output($watch) =~ /on a standby, so this looks every 2 s\n.*^31 /ms });

	$node->promote;
	await('up to its promotion', sub { output($watch) =~ /^31 +\(grace of a promotion\) +grace /m });
	kill 'TERM', $watch->{pid};
	is(end_of($watch), 0, 'status 0');
	explained(31, 'grace', 'grace of a promotion', 'a promotion: somebody of whom this server does not know may lead\nleft: \d+min\nlast leader: d\n', 'grace');
	($status, $out) = leaderctl('status', '-l', 99, '--format', 'json');
	is($status, 3, 'nobody leads a lock that nobody has heard of');
	is(decode_json($out)->{reason}, 'grace', 'as the grace keeps it from all');
};

is(end_of($deaf), 0, 'who does not listen is killed');
ok(`pgrep -f '^/bin/sh $note $build/d '` !~ /\d/, 'and gone');

done_testing();
