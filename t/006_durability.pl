# A term of which a synchronous standby has not heard is none: a failover
# would forget it, and somebody else would lead.  So a transition waits for
# the standby even in a session that has synchronous_commit switched off, and
# that setting stays as it was.  A heartbeat and a refused attempt have
# nothing to wait for, but for the first heartbeat of a term: the wait of its
# commit may have been cut short, and then nobody may be told that he leads
# before the standby has heard of it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $long = 600_000;    # outlives the test
my $short = 2000;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf',
	'leader_election.sweep_interval = 1h');
$primary->start;
$primary->safe_psql('postgres', q{
	CREATE EXTENSION leader_election;
	CREATE TABLE note (id int);});
is( $primary->safe_psql('postgres', qq{
		SELECT le_try_acquire(1, 'a', $long);
		SELECT le_renew(1, 'a');
		SELECT le_try_acquire(2, 'a', $long);
		SELECT le_try_acquire(3, 'a', $long);
		SELECT le_try_acquire(id, 'a', $long) FROM generate_series(4, 6) AS id;}),
	"t\nt\nt\nt\nt\nt\nt",
	'leases');

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->append_conf('postgresql.conf',
	"synchronous_standby_names = 'standby'");
$primary->reload;
$primary->poll_query_until('postgres',
	"SELECT sync_state = 'sync' FROM pg_stat_replication")
  or die 'the standby did not become synchronous';
$standby->stop;

# Sessions that must wait: what they do, and what they print then.
my %waits = (
	off => [
		"t\noff\n",
		'SET synchronous_commit = off',
		"SELECT le_try_acquire(11, 'a', $long)",
		'SHOW synchronous_commit'
	],
	local => [
		"t\nlocal\n",
		'SET synchronous_commit = local',
		"SELECT le_try_acquire(12, 'a', $long)",
		'SHOW synchronous_commit'
	],
	release => [
		"t\noff\n",
		'SET synchronous_commit = off',
		"SELECT le_release(3, 'a')",
		'SHOW synchronous_commit'
	],
	transfer => [
		"t\noff\n",
		'SET synchronous_commit = off',
		"SELECT le_transfer(4, 'a', le_token(4, 'a'), 'c')",
		'SHOW synchronous_commit'
	],
	hold => [
		"t\noff\n",
		'SET synchronous_commit = off',
		"SELECT le_release(5, 'a', hold_ms => $long)",
		'SHOW synchronous_commit'
	],
	revoke => [
		"t\noff\n",
		'SET synchronous_commit = off',
		'SELECT le_revoke(6)',
		'SHOW synchronous_commit'
	],
	block => [
		"t\nlocal\n",
		'SET synchronous_commit = local',
		'SET leader_election.allow_in_transaction = on',
		'BEGIN',
		'SET LOCAL synchronous_commit = off',
		"SELECT le_try_acquire(13, 'a', $long)",
		'COMMIT',
		'SHOW synchronous_commit'
	]);
my %session;

foreach my $name (sort keys %waits)
{
	my (undef, @statements) = @{ $waits{$name} };
	my %new = (out => '', err => '');
	$session{$name} = \%new;
	$new{run} = IPC::Run::start(
		[
			'psql', '-XAtq', '-d',
			$primary->connstr('postgres') . " application_name=$name",
			map { ('-c', $_) } @statements
		],
		'>', \$new{out}, '2>', \$new{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
}
ok( $primary->poll_query_until('postgres',
		"SELECT wait_event = 'SyncRep' FROM pg_stat_activity
		  WHERE application_name = '$_'"),
	"transition waits: $_")
  foreach (sort keys %waits);

# What does not wait is done without the warning that a cancelled wait gives.
sub does_not_wait
{
	my ($sql, $expected, $name) = @_;
	my ($rc, $out, $err) = $primary->psql('postgres',
		"SET statement_timeout = '30s'; $sql");
	is("$out$err", $expected, $name);
	return;
}

does_not_wait("SELECT le_renew(1, 'a'), le_try_acquire(1, 'a', $long)",
	't|t', 'a heartbeat does not wait');
does_not_wait(
	"BEGIN; SELECT le_renew(1, 'a'); COMMIT", 't',
	'nor does its transaction');
does_not_wait("SELECT le_try_acquire(1, 'b'), le_try_acquire(2, 'b')",
	'f|f', 'nor a refused attempt');
does_not_wait(
	"SELECT le_try_acquire(11, 'b'), le_try_acquire(3, 'b'), le_try_acquire(4, 'c'), le_renew(4, 'c'), le_try_acquire(5, 'b'), le_try_acquire(6, 'b')",
	'f|f|f|f|f|f',
	'nor one at a lock whose transition waits');
does_not_wait(
	"SET synchronous_commit = off; INSERT INTO note VALUES (1)", '',
	'nor anything else that is committed asynchronously');
is( $primary->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"),
	scalar(keys %waits),
	'the transitions still wait');

$standby->start;
foreach my $name (sort keys %waits)
{
	my ($expected) = @{ $waits{$name} };
	$session{$name}{run}->finish;
	is($session{$name}{out}, $expected,
		"the standby is back, done, and the setting is as before: $name");
	is($session{$name}{err}, '', 'without a warning');
}
$standby->stop;

sub waits_for_standby
{
	my ($pid, $name) = @_;
	ok( $primary->poll_query_until('postgres',
			"SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $pid"),
		$name);
	return;
}

# Ask whether the instance leads, in each way that a heartbeat can be asked
# for; all must wait for the standby, and say nothing when they are cancelled.
sub is_not_told
{
	my ($lock, $name) = @_;
	foreach my $call ("le_try_acquire($lock, 'a', $long)", "le_renew($lock, 'a')")
	{
		my $session = Session->new($primary->connstr('postgres'));
		my $pid = $session->pid;
		$session->say('SET synchronous_commit = off');
		$session->send("SELECT $call");
		waits_for_standby($pid, "$name: $call waits for the standby");
		$primary->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
		like($session->receive, qr/ERROR:  57014\z/,
			'and says nothing if it is cancelled');
		is($session->say('SHOW synchronous_commit'),
			'off', 'the setting is as before');
		$session->quit;
	}
	does_not_wait("SELECT elected, leader_id FROM le_campaign($lock, 'a', $long, 50)",
		'f|a', "$name: le_campaign waits for as long as it was told to");
	does_not_wait("SELECT le_try_acquire($lock, 'b')",
		'f', 'nobody else gets in, and does not wait');
	return;
}

subtest 'a term that the standby may lack' => sub {
	does_not_wait(
		"SET synchronous_commit = local; INSERT INTO note VALUES (2)", '',
		'there is something that the standby has not got');
	does_not_wait("SELECT le_renew(11, 'a')", 't',
		'the first heartbeat of a term whose commit it has confirmed');

	is_not_told(2, 'a first heartbeat');

	# the wait of the commit was cut short; the client asks again
	my %cut = (
		31 => 'pg_cancel_backend',
		32 => 'pg_terminate_backend');
	foreach my $lock (sort keys %cut)
	{
		my ($out, $err) = ('', '');
		my $client = IPC::Run::start(
			[
				'psql', '-XAtq', '-d',
				$primary->connstr('postgres') . " application_name=cut$lock",
				'-c', "SELECT le_try_acquire($lock, 'a', $long)"
			],
			'>', \$out, '2>', \$err,
			IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
		my $this = "application_name = 'cut$lock'";
		ok( $primary->poll_query_until('postgres',
				"SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE $this"),
			"lock $lock: a commit waits");
		$primary->safe_psql('postgres',
			"SELECT $cut{$lock}(pid) FROM pg_stat_activity WHERE $this");
		$client->finish;
		is($out, '', 'it is cut short, and the client is not told that it leads');
		like($err, qr/connection|server closed/, 'but loses its connection');
		is($primary->safe_psql('postgres', "SELECT le_leader($lock)"),
			'a', 'the term is committed here');
		is_not_told($lock, 'asked again');
	}

	# The restart ends the commits that wait as well.
	$primary->stop('immediate');
	$primary->start;
	foreach my $lock (1, 31)
	{
		is( $primary->safe_psql('postgres', "SELECT le_leader($lock)"),
			'a', "after a restart, lock $lock");
		is_not_told($lock, 'asked again');
	}
};

$standby->start;
does_not_wait("SELECT le_renew($_, 'a'), le_try_acquire($_, 'a')",
	't|t', "with the standby back, lock $_")
  foreach (1, 2, 31, 32);
$primary->wait_for_catchup($standby);
is( $standby->safe_psql('postgres',
		q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM leader_lease}),
	'1 2 4 5 6 11 12 13 31 32',
	'the standby knows of them');
is( $primary->safe_psql('postgres', q{
		SELECT le_leader(11), le_leader(12), le_leader(13),
			   le_leader(3) IS NULL, le_renew(4, 'c'), le_leader(5) IS NULL,
			   le_leader(6) IS NULL}),
	'a|a|a|t|t|t|t',
	'the transitions have happened');

# The standby has every grant, so promotion_grace may be 0: a lock without a
# lease is free at once, all others one lease after the promotion.
subtest 'the synchronous standby is promoted' => sub {
	is( $primary->safe_psql('postgres', qq{
			SELECT le_try_acquire(21, 'a', $short), le_renew(21, 'a')}),
		't|t',
		'a short lease');
	my $token = $primary->safe_psql('postgres', q{SELECT le_token(21, 'a')});
	$primary->stop('immediate');
	$standby->append_conf('postgresql.conf', q{
leader_election.promotion_grace = 0
synchronous_standby_names = ''});
	$standby->restart;
	$standby->promote;

	is( $standby->safe_psql('postgres', qq{
			SELECT le_leader(21) IS NULL, le_try_acquire(21, 'b', $long),
				   le_renew(21, 'a', $token), le_renew(21, 'a'),
				   le_try_acquire(21, 'a', $short);
			SELECT le_try_acquire(3, 'b', $long);
			SELECT le_renew(1, 'a'), le_try_acquire(1, 'b', $long);}),
		"t|f|f|f|f\nt\nf|f",
		'a lock without a lease is free at once, no other is');
	ok( $standby->poll_query_until('postgres',
			"SELECT le_try_acquire(21, 'b', $long)"),
		'a short lease is replaced');
	is( $standby->safe_psql('postgres', qq{
			SELECT extract(epoch FROM created_at - epoch_start) * 1000
					 BETWEEN $short * 11 / 10 * 0.999 AND $long,
				   token > $token,
				   le_renew(21, 'a', $token)
			  FROM leader_lease, le_info() WHERE id = 21}),
		't|t|f',
		'after its length, by a larger token; the old leader is deposed');
};

$standby->stop;
done_testing();
