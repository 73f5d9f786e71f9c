# A connection pooler in transaction mode gives each statement whatever server
# connection is free.  A lease belongs to a name and not to a session, so
# nothing changes: a term that began on one server connection is renewed on
# another and released on a third, and nobody else gets in.
#
# Needs Debian's pgbouncer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;
use Time::HiRes qw(usleep);

my $pgbouncer = '/usr/sbin/pgbouncer';
plan skip_all => 'pgbouncer is not installed' unless -x $pgbouncer;

my $long = 600_000;    # outlives the test

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

# The pooler listens on a socket beside the server's, under a port of its own.
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $dir = $PostgreSQL::Test::Utils::tmp_check;
my ($socket, $server_port) = ($node->host, $node->port);
my $user = getpwuid($<);
append_to_file("$dir/pgbouncer.ini", qq{
[databases]
postgres = host=$socket port=$server_port
[pgbouncer]
unix_socket_dir = $socket
listen_port = $port
auth_type = trust
auth_file = $dir/pgbouncer.users
pool_mode = transaction
default_pool_size = 3
server_round_robin = 1
});
append_to_file("$dir/pgbouncer.users", qq{"$user" ""\n});
my $said = '';
my $pooler = IPC::Run::start([ $pgbouncer, "$dir/pgbouncer.ini" ],
	'<', \undef, '>&', \$said,
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
END { $pooler->kill_kill if $pooler }

my $pooled = "host=$socket port=$port user=$user dbname=postgres";

sub ask
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');
	my $file = "$dir/ask.sql";    # no pipe: who cannot connect does not read it
	unlink $file;
	append_to_file($file, $sql);
	IPC::Run::run([ 'psql', '-XAtq', '-d', $pooled, '-f', $file ],
		'<', \undef, '>', \$out, '2>', \$err);
	$out =~ s/\n$//;
	return $out . $err;
}

my $tries = 0;
until (ask('SELECT 1') eq '1')
{
	die "no pooler: $said" if $tries++ > 100;
	usleep(100_000);
}

# Keep a server connection busy, so that others have to use another.
my @busy;

sub occupy
{
	my $session = Session->new($pooled);
	push @busy, $session;
	return $session->say('BEGIN; SELECT pg_backend_pid()');
}

sub let_go
{
	foreach my $session (@busy)
	{
		$session->say('COMMIT');
		$session->quit;
	}
	@busy = ();
	return;
}

my ($first, $second) = (occupy(), occupy());
isnt($first, $second, 'two server connections are busy');
my $third = ask('SELECT pg_backend_pid()');
is( ask("SELECT le_try_acquire(1, 'a', $long)"),
	't', 'a term, begun on the third');
my $token = ask("SELECT le_token(1, 'a')");
like($token, qr/^\d+$/, 'its token');
let_go();

occupy() foreach 1 .. 2;
my $other = ask('SELECT pg_backend_pid()');
isnt($other, $third, 'the third is busy, another is free');
is(ask("SELECT le_renew(1, 'a', $token), le_try_acquire(1, 'b')"),
	't|f', 'renewed on the other, and nobody else gets in');
let_go();

# Each of these goes to the connection whose turn it is.
my %used;
my $answers = '';
foreach (1 .. 12)
{
	my ($answer, $pid) =
	  ask("SELECT le_renew(1, 'a', $token), pg_backend_pid()") =~
	  /^(\w)\|(\d+)$/;
	$used{$pid}++;
	$answers .= $answer;
}
is($answers, 't' x 12, 'twelve heartbeats');
cmp_ok(scalar(keys %used), '>', 1, 'on several server connections');

like(
	ask("BEGIN; SELECT le_try_acquire(2, 'a', $long); COMMIT;"),
	qr/cannot begin a term on lock 2 inside a transaction block/,
	'a transaction block is one here too');
is(ask("SELECT le_release(1, 'a', $token)"), 't', 'released');
is(ask("SELECT le_try_acquire(1, 'b', $long)"), 't', 'taken over');

# Who waits keeps one server connection busy.
my $waits = "SELECT elected FROM le_campaign(1, 'c', $long, 60000)";
my $waiter = Session->new($pooled);
$waiter->send($waits);
my $gone = Session->new($pooled);
$gone->send($waits);
ok( $node->poll_query_until('postgres', 'SELECT count(*) = 2 FROM leader_waiting'),
	'two clients wait');
$gone->{run}->signal('KILL');
eval { $gone->{run}->finish };
ok( $node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM leader_waiting'),
	'one that is killed waits no more');
is( ask("SELECT leads, waiting FROM le_keep_alive(1, 'b', le_token(1, 'b'))"),
	't|t',
	'the leader is told of the other');
is(ask("SELECT le_release(1, 'b')"), 't', 'and releases');
is($waiter->receive, 't', 'the other leads');
is(ask("SELECT le_leader(1)"), 'c', 'on all connections');
$waiter->quit;

$pooler->signal('TERM');
$pooler->finish;
$pooler = undef;
$node->stop;
done_testing();
