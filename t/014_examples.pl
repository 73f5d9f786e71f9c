# examples/leader.py, as people will copy it: it works while it leads, ends its
# work before it releases, does not keep the lead when the work has died, and a
# frozen one does no work after it woke.
#
# Needs Debian's python3-psycopg2.

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

my $python = '/usr/bin/python3';    # leader.py's own, not the first in PATH
plan skip_all => "$python has no psycopg2 (Debian: python3-psycopg2)"
  unless IPC::Run::run([ $python, '-c', 'import psycopg2' ], '>&', \my $no);

my $examples = "$FindBin::RealBin/../examples";

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
$node->safe_psql(
	'postgres', q{
	CREATE EXTENSION leader_election;
	CREATE TABLE le_example (token bigint, at timestamptz DEFAULT now())});
my $connstr = $node->connstr('postgres');

sub sql
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

my @contenders;

# Leave none of them, the frozen ones neither.
END
{
	local $?;
	$_->{run}->kill_kill(grace => 1) foreach @contenders;
}

# Start one; its name is that of its connections.
sub contend
{
	my ($name) = @_;
	my $self = { name => $name, out => '', err => '' };
	$self->{run} = IPC::Run::start(
		[ "$examples/leader.py", "$connstr application_name=$name" ],
		'<', \undef, '>', \$self->{out}, '2>', \$self->{err});
	push @contenders, $self;
	return $self;
}

# Wait for a condition, and meanwhile read what all of them print.
sub await
{
	my ($what, $condition) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$_->{run}->pump_nb foreach grep { $_->{run}->pumpable } @contenders;
		return if $condition->();
		usleep(100_000);
	}
	die "waited in vain until $what; " . join '; ',
	  map { "$_->{name} said: $_->{out}$_->{err}" } @contenders;
}

sub await_sql
{
	my ($what, $sql) = @_;
	return await($what, sub { sql($sql) eq 't' });
}

# Wait until it leads, in another term than before; that term's token.
sub await_leading
{
	my ($self) = @_;
	my $before = $self->{token} // 0;
	await(
		"$self->{name} leads",
		sub {
			($self->{token}) = $self->{out} =~ /^leading, token (\d+)\n\z/m;
			return ($self->{token} // $before) != $before;
		});
	return $self->{token};
}

sub await_work
{
	my ($self) = @_;
	return await_sql("$self->{name} works",
		"SELECT count(*) > 2 FROM le_example WHERE token = $self->{token}");
}

# Wait until it asks for the lead.
sub await_following
{
	my ($self) = @_;
	return await_sql(
		"$self->{name} follows", "
		SELECT count(*) > 0 FROM pg_stat_activity
		 WHERE application_name = '$self->{name}' AND query ~ 'le_campaign'");
}

sub pieces
{
	my ($self) = @_;
	return sql(
		"SELECT count(*) FROM le_example WHERE token = $self->{token}");
}

sub has_lease
{
	my ($self) = @_;
	return sql(
		"SELECT count(*) FROM leader_lease WHERE token = $self->{token}");
}

# Wait until it has ended; its wait status.
sub await_end
{
	my ($self) = @_;
	await("$self->{name} has ended", sub { !$self->{run}->pumpable });
	$self->{run}->finish;
	@contenders = grep { $_ != $self } @contenders;
	return $self->{run}->full_result(0);
}

# Hold its next piece of work up in the middle, when it is guarded, until the
# session that this returns ends its transaction.
sub hold_up
{
	my ($self) = @_;
	my $session = Session->new($connstr);
	$session->say('BEGIN; LOCK TABLE le_example IN SHARE MODE');
	await_sql(
		"$self->{name} waits in its work", "
		SELECT count(*) > 0 FROM pg_stat_activity
		 WHERE application_name = '$self->{name}' AND query ~ '^INSERT' AND wait_event_type = 'Lock'"
	);
	return $session;
}

sub let_go
{
	my ($session) = @_;
	$session->say('COMMIT');
	return $session->quit;
}

my $leader = contend('first');
my $token = await_leading($leader);
is(sql("SELECT token, state FROM leader_lease"),
	"$token|live", 'it leads, and knows its token');
await_work($leader);
my $follower = contend('second');
await_following($follower);
is($follower->{out}, '', 'another one does not lead');

foreach my $how ('TERM', 'INT', 'an operator')
{
	if ($how eq 'an operator')
	{
		is(sql('SELECT le_request_resign(1)'), 't', 'a leader is asked to go');
	}
	else
	{
		$leader->{run}->signal($how);
	}
	is(await_end($leader), 0, "$how ends a leader");
	is(has_lease($leader), 0, '... and its term');
	like(
		$leader->{out},
		qr/^not leading\nreleased\n\z/m,
		'... after its work');
	is($leader->{err}, '', '... without an error');
	cmp_ok(await_leading($follower),
		'>', $leader->{token}, 'the other one leads');
	await_work($follower);
	$leader = $follower;
	$follower = contend("after_" . $how =~ s/\W/_/r);
	await_following($follower);
}

subtest 'SIGTERM in the middle of a piece of work' => sub {
	my $hold = hold_up($leader);
	my $before = pieces($leader);
	$leader->{run}->signal('TERM');
	my $renewals = sql('SELECT coalesce(renewals, 0) FROM leader_lease');
	await_sql(
		'it heartbeats, as it works still',
		"SELECT renewals > $renewals FROM leader_lease WHERE token = $leader->{token}"
	);
	let_go($hold);
	is(await_end($leader), 0, 'it ends');
	is(pieces($leader), $before + 1, 'when it has ended that piece');
	is(has_lease($leader), 0, 'and has released');
	is($leader->{err}, '', 'without an error');
};

await_leading($follower);
$leader = $follower;
$follower = contend('next');
await_following($follower);

subtest 'the work dies' => sub {
	await_work($leader);
	sql('ALTER TABLE le_example RENAME TO elsewhere');
	is(await_end($leader), 1 << 8, 'it ends');
	is(has_lease($leader), 0, 'it has released');
	like($leader->{err}, qr/^Traceback.*UndefinedTable/s, 'and says why');
	is(await_end($follower), 1 << 8, 'and so does the next one');
	sql('ALTER TABLE elsewhere RENAME TO le_example');
};

$leader = contend('frozen');
await_leading($leader);
$follower = contend('successor');
await_following($follower);

subtest 'frozen in the middle of a piece of work' => sub {
	await_work($leader);
	my $hold = hold_up($leader);
	my $before = pieces($leader);
	$leader->{run}->signal('STOP');
	# its lease need not have run out by its clock: the server knows better
	is(sql('SELECT le_release(id, leader_id, token) FROM leader_lease'),
		't', 'an administrator ends its term');
	await_leading($follower);
	let_go($hold);
	await_work($follower);
	$leader->{run}->signal('CONT');
	await('it is told', sub { $leader->{out} =~ /^not leading\n\z/m });
	is(pieces($leader), $before, 'nothing of that piece is kept');
	is(() = $leader->{err} =~ /^refused: .*lock 1/mg,
		1, 'its COMMIT was refused, and it tried nothing else');
	await_following($leader);

	$follower->{run}->signal('TERM');
	is(await_end($follower), 0, 'its successor ends');
	await_leading($leader);
	await_work($leader);
	pass('it leads again');
};

subtest 'frozen between two pieces of work' => sub {
	$follower = contend('last');
	await_following($follower);
	$leader->{err} = '';
	await(
		'it is frozen there',
		sub {
			$leader->{run}->signal('STOP');
			return 1 if sql("
			SELECT state = 'idle' FROM pg_stat_activity
			 WHERE application_name = '$leader->{name}' AND query ~ 'COMMIT'") eq 't';
			$leader->{run}->signal('CONT');
			return 0;
		});
	my $before = pieces($leader);
	await_leading($follower);
	$leader->{run}->signal('CONT');
	await('it knows by its clock',
		sub { $leader->{out} =~ /^not leading\n\z/m });
	is($leader->{err}, '', 'it tries nothing');
	is(pieces($leader), $before, 'and does nothing');
	foreach my $self ($leader, $follower)
	{
		$self->{run}->signal('TERM');
		is(await_end($self), 0, "$self->{name} ends");
	}
	is(has_lease($follower), 0, 'nobody leads');
};

# What can only be seen with a server and a clock that do as we want.
subtest 'the rules' => sub {
	my ($out, $err);
	IPC::Run::run([ $python, '-B', '-' ],
		'<', \<<"PYTHON", '>', \$out, '2>', \$err);
import sys
sys.path.insert(0, "$examples")
import leader
import psycopg2

now, calls, answers = 1000, [], []
leader.clock = lambda: now
leader.complain = lambda error: None
leader.time.sleep = lambda seconds: None

def ask(self, sql, *args):
    global now
    name = sql.split("(")[0].split()[-1]
    calls.append(name + str(args[2:]))
    delay, answer = answers.pop(0) if answers else (0, True)
    now += delay
    if answer is None:
        raise psycopg2.OperationalError("no connection")
    if name == "le_keep_alive":
        return bool(answer), 10000, answer == "resign"
    if name == "le_campaign":
        return (True, 7, 10000 + 900 * delay) if answer else (False, None, None)
    return answer,

leader.Contender.ask = ask

def contender(*term):
    global now
    now = 1000
    calls.clear()
    c = leader.Contender("")
    c.me, c.term = "me", term or (None, 0)
    return c

c = contender()
answers += [(3, True)]
c.turn()
print("a term counts from before sending, and from the wait:", c.term)
now = 1012.6
print("it lasts", c.leads())
now = 1012.7
print("until", c.leads())
c = contender()
answers += [(5, False)]
print("who has waited in vain waits again:", c.turn(), c.term)

c = contender(7, 1008)
answers += [(3, True)]
c.turn()
print("and so does a heartbeat:", c.term)
c = contender(7, 1008)
answers += [(8, True)]
c.turn()
print("but not one answered after the deadline:", c.term)
c = contender(7, 1008)
answers += [(0, None)]
c.turn()
print("an error changes nothing:", c.term)
answers += [(0, False)]
c.turn()
print("a false does:", c.term)

c = contender(7, 1008)
c.deposed(7)
print("LE001 ends a term:", c.turn() > 0, c.leads(), calls)
c = contender(7, 1008)
answers += [(0, "resign")]
c.turn()
print("asked to go:", c.leads(), c.stopping, c.term)

c = contender(7, 1008)
c.stop()
c.turn()
print("told to stop, while the work ends:", c.leads(), calls)
now = 1018
c.turn()
print("but nothing new:", calls)

c = contender(7, 1008)
answers += [(1, None), (1, None), (1, True)]
c.release()
print("a release is repeated:", calls)
c = contender(7, 1008)
answers += [(5, None), (5, None)]
c.release()
print("until the lease is over:", calls)

c = contender(7, 1000 + leader.PATIENCE + 9)
now += leader.PATIENCE + 1
c.turn()
print("the work hangs:", calls)
c.leads()
c.turn()
print("the work goes on:", calls)

c = contender(7, 1000000)
beats = [c.turn() for _ in range(1000)]
c = contender(7, 1000000)
answers += [(0, None)] * 1000
again = [c.turn() for _ in range(1000)]
print("pauses:", min(beats) >= 1, max(again) <= 1, max(beats) < leader.LEASE / 2 + 1)
PYTHON
	is($err, '', 'no error');
	is($out, <<'SAID', 'as expected');
a term counts from before sending, and from the wait: (7, 1012.7)
it lasts 7
until None
who has waited in vain waits again: 0 (None, 0)
and so does a heartbeat: (7, 1010.0)
but not one answered after the deadline: (None, 0)
an error changes nothing: (7, 1008)
a false does: (None, 0)
LE001 ends a term: True None ['le_campaign(10000, 5000)']
asked to go: None True (7, 1010.0)
told to stop, while the work ends: None ['le_keep_alive(7,)']
but nothing new: ['le_keep_alive(7,)']
released
a release is repeated: ['le_release(7,)', 'le_release(7,)', 'le_release(7,)']
until the lease is over: ['le_release(7,)', 'le_release(7,)']
the work hangs: []
the work goes on: ['le_keep_alive(7,)']
pauses: True True True
SAID
};

$node->stop;
done_testing();
