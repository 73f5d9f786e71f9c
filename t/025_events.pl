# With leader_election.notify whoever listens is told that a lock has changed
# hands: which lock and how, once, when it is committed, and no more.  An event
# must not stop an election, so it is left out when the server's queue is nearly
# full.  NOTIFY takes one lock of the whole cluster, which is why it is off by
# default, and then nobody's NOTIFY delays an election.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $long = 600_000;    # outlives the test

$ENV{PGOPTIONS} = '-c client_min_messages=error';

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

my $elector = Session->new($node->connstr('postgres'));
my $listener = Session->new($node->connstr('postgres'));
$listener->say('LISTEN leader_election');

# What the listener has been told since, "lock event" each; the NOTIFY of a mark
# shows that there is nothing more to come.
my $mark = 0;

sub heard
{
	my $mark_name = 'mark ' . ++$mark;
	$elector->say("NOTIFY leader_election, '$mark_name'");
	my $heard = '';
	$heard .= $listener->say('SELECT') . "\n" until $heard =~ /"$mark_name"/;
	my @payloads = $heard =~ /notification "leader_election" with payload "(.*)" received/g;
	is(pop @payloads, $mark_name, 'nothing after the mark');
	return join ', ', @payloads;
}

sub event
{
	return join ', ', map { my ($lock, $event) = split; qq({"lock_id":$lock,"event":"$event"}) } @_;
}

sub does
{
	my ($sql, $said, $events, $name) = @_;
	is($elector->say($sql), $said, $name);
	is(heard(), event(@$events), 'is told');
	return;
}

does("SELECT le_try_acquire(1, 'secret', $long); SELECT le_release(1, 'secret')",
	"t\nt", [], 'off by default: nothing');

$node->append_conf('postgresql.conf', 'leader_election.notify = on');
$node->reload;
ok( $node->poll_query_until('postgres', 'SHOW leader_election.notify', 'on'),
	'switched on');
# (the session itself has it with its next statement)
$elector->say('SELECT') until $elector->say('SHOW leader_election.notify') eq 'on';

subtest 'each change is told once' => sub {
	does("SELECT le_try_acquire(1, 'secret', $long)", 't', ['1 acquired'], 'begin');
	does("SELECT le_renew(1, 'secret'), le_try_acquire(1, 'secret', $long)",
		't|t', [], 'heartbeats');
	does("SELECT leads FROM le_keep_alive(1, 'secret', le_token(1, 'secret'))",
		't', [], 'le_keep_alive');
	does("SELECT le_try_acquire(1, 'other'), le_release(1, 'other'), elected
			FROM le_campaign(1, 'other')",
		'f|f|f', [], 'refused');
	does("SELECT le_transfer(1, 'secret', le_token(1, 'secret'), 'next')",
		't', ['1 transferred'], 'transfer');
	does("SELECT le_request_resign(1)", 't', [], 'somebody is asked to go');
	does("SELECT le_release(1, 'next')", 't', ['1 released'], 'release');
	does("SELECT elected FROM le_campaign(1, 'secret', $long)", 't', ['1 acquired'], 'le_campaign');
	does('SELECT le_revoke(1)', 't', ['1 revoked'], 'revoke');
	does('SELECT le_revoke(1)', 'f', [], 'nothing to revoke');
	does('SELECT le_revoke(1, true)', 't', ['1 revoked'], 'immediately: others may now');
	does("SELECT le_try_acquire(1, 'next', $long); SELECT le_release(1, 'next', hold_ms => $long)",
		"t\nt", [ '1 acquired', '1 released' ], 'release with a hold');
	does("SELECT le_try_acquire(-9223372036854775808, 'secret', $long)", 't',
		['-9223372036854775808 acquired'], 'the smallest id');
	does("SELECT count(le_try_acquire(id, 'secret', $long)) FROM generate_series(11, 13) AS id",
		'3', [ '11 acquired', '12 acquired', '13 acquired' ], 'three locks');
};

subtest 'what is rolled back is not told' => sub {
	does("BEGIN; SELECT le_release(11, 'secret'); ROLLBACK", 't', [], 'rolled back');
	does("BEGIN; SAVEPOINT s; SELECT le_release(11, 'secret'); ROLLBACK TO s; COMMIT",
		't', [], 'to a savepoint');
	does("BEGIN; SELECT le_release(11, 'secret'); SELECT 1/0; COMMIT",
		"t\nERROR:  22012", [], 'by an error');
	is($elector->say("BEGIN; SELECT le_release(11, 'secret')"), 't', 'not yet committed');
	unlike($listener->say('SELECT'), qr/payload/, 'nothing is told');
	does('COMMIT', '', ['11 released'], 'committed');
};

subtest 'run out' => sub {
	does("SELECT le_try_acquire(21, 'secret', 1)", 't', ['21 acquired'], 'a short lease');
	ok( $node->poll_query_until('postgres', 'SELECT le_leader(21) IS NULL'), 'over');
	does('SELECT le_sweep(0)', '1', [], 'a sweep is nobody\'s act');
};

subtest 'a full queue' => sub {
	plan skip_all => 'the size of the queue can be set from 17 on'
	  if $node->safe_psql('postgres', 'SHOW server_version_num') < 170000;

	$node->append_conf('postgresql.conf', 'max_notify_queue_pages = 64');
	$node->restart;
	my $idle = Session->new($node->connstr('postgres'));
	my $filler = Session->new($node->connstr('postgres'));
	$elector = Session->new($node->connstr('postgres'));
	$idle->say('LISTEN other; BEGIN; SELECT');
	my $i = 0;
	$filler->say("SELECT count(pg_notify('other', repeat('x', 7000) || $i || n)) FROM generate_series(1, 2) AS n"),
	  $i++
	  while $elector->say('SELECT pg_notification_queue_usage() < 0.9') eq 't' && $i < 1000;
	is( $elector->say("SELECT le_try_acquire(31, 'node', $long)")
		  . $elector->say("SELECT le_release(31, 'node')"),
		'tt', 'nearly full');
	my $said = '';
	$said = $filler->say("SELECT count(pg_notify('other', repeat('y', 7000) || $i || n)) FROM generate_series(1, 2) AS n"),
	  $i++
	  while $said !~ /ERROR/ && $i < 2000;
	like($said, qr/ERROR:  54000/, 'full');
	is( $elector->say("SELECT le_try_acquire(31, 'node', $long)")
		  . $elector->say("SELECT le_release(31, 'node')"),
		'tt', 'elections go on');
	$idle->say('COMMIT');
	$_->quit foreach ($idle, $filler);
};

# With a synchronous standby that is away a commit with a NOTIFY keeps the lock
# of all NOTIFY.  An election waits for the standby as well.
subtest 'a NOTIFY that hangs in another database' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	$node->adjust_conf('postgresql.conf', 'leader_election.notify', undef);
	foreach my $notify ('default', 'on')
	{
		$node->append_conf('postgresql.conf', 'leader_election.notify = on')
		  if $notify eq 'on';
		$node->restart;
		$elector = Session->new($node->connstr('postgres'));
		my $hanging = Session->new($node->connstr('other'));
		my ($elects, $hangs) = map { $_->pid } ($elector, $hanging);
		$hanging->say("BEGIN; CREATE TABLE t_$notify (); NOTIFY other, 'hangs'");

		$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'away'});
		$node->reload;
		ok( $node->poll_query_until('postgres', 'SHOW synchronous_standby_names', 'away'),
			'a synchronous standby that is away');
		$hanging->send('COMMIT');
		ok( $node->poll_query_until('postgres', qq{
				SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $hangs}),
			'a commit with a NOTIFY waits for it');

		$elector->send("SELECT le_try_acquire(41, 'node-$notify', $long)");
		my $waits = "SELECT wait_event FROM pg_stat_activity WHERE pid = $elects";
		ok( $node->poll_query_until('postgres',
				"SELECT ($waits) IN ('SyncRep', 'object')"),
			'an election waits');
		is( $node->safe_psql('postgres', $waits),
			$notify eq 'on' ? 'object' : 'SyncRep',
			"notify = $notify: for what");
		$node->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names');
		$node->reload;
		is($elector->receive, 't', 'done, as the standby is not wanted any more');
		is($hanging->receive, '', 'so is the other commit');
		is($elector->say("SELECT le_release(41, 'node-$notify')"), 't', 'released');
		$_->quit foreach ($elector, $hanging);
	}
};

done_testing();
