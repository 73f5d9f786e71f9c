# leaderctl run: the command runs while its leaderctl leads, and is gone before
# the lease is over, whatever happens to leaderctl, its keeper, the server, and
# whatever the command does against it; so there are never two.
#
# The commands record when they have run, and Alive.pm judges that.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Alive;
use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Proxy;
use Test::More;
use Time::HiRes qw(usleep);

# A tenth of the lease is what the server keeps it longer: for so long, and the
# keeper's own margin, the machine may run nobody.
my $lease = 3;
my @usual = ('--lease', "${lease}s", '--renew', '500ms', '--jitter', '100ms', '--kill-after', '300ms');

ok(Alive::build(), 'leaderctl builds without the server\'s development files');
my $build = $Alive::build;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', $Alive::server_settings);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');
$node->safe_psql('postgres', 'CREATE DATABASE empty');
my $connstr = $node->connstr('postgres');

sub start
{
	my ($name, $lock, %more) = @_;
	return Alive->new(
		name => $name,
		lock => $lock,
		%more,
		options => [ '-d', $connstr, @usual, @{ $more{options} // [] } ]);
}

# How many heartbeats the server has had of it
sub beats
{
	my ($self) = @_;
	return scalar grep { $_->[0] eq 'le_keep_alive' } @{ Alive::calls($node->logfile)->{ $self->{name} } // [] };
}

sub works
{
	my ($self) = @_;
	my $now = Alive::now();
	Alive::await("$self->{name} works", sub { $self->works_since($now) });
	return;
}

# What the list of those who wait must be for these locks
sub all_wait
{
	my (@waiters) = @_;
	Alive::await(
		'the others wait',
		sub {
			my %waits = map { $_ => 1 } split /\n/,
			  $node->safe_psql('postgres', q{SELECT regexp_replace(instance, ':[^:]*$', '') FROM leader_waiting});
			return !grep { !$waits{ $_->{name} } } @waiters;
		});
	return;
}

sub judge
{
	my ($name, $excused, @all) = @_;
	my ($wrong, $terms) = Alive::judge(Alive::calls($node->logfile), $lease, $excused, @all);
	is(join("\n", @{$wrong}), '', "$name: never two at once, none past its deadline, in $terms terms");
	return;
}

# Told to stop, all of them do, and nothing of them is left.
sub stop_all
{
	my (@all) = @_;
	$_->signal('TERM') foreach @all;
	$_->is_over(0, 'ends when it is told to') foreach grep { !defined $_->status } @all;
	Alive::all_gone(@all);
	return;
}

subtest 'wrong from the start' => sub {
	foreach my $case (
		[ [], qr/no lock was given/ ],
		[ [ '-l', 1, '--lease', '1s' ], qr/shorter than twice --renew/ ],
		[ [ '-l', 1, '--lease', '10' ], qr/"10" is not a duration/ ],
		[ [ '-l', 1, '--priority', '10' ], qr/outside the range 0 to 9/ ],
		[ [ '-l', '9223372036854775808' ], qr/range of bigint/ ],
		[ [ '-l', 1, '-d', $node->connstr('empty') ], qr/has no extension leader_election/ ])
	{
		my ($options, $expected) = @{$case};
		my ($out, $err) = ('', '');
		IPC::Run::run([ $Alive::program, 'run', '-d', $connstr, @{$options}, '--', 'touch', "$build/touched" ],
			'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
		is($? >> 8, 2, "status 2: @{$options}[0 .. ($#{$options} > 3 ? 3 : $#{$options})]");
		like($err, $expected, 'says why');
	}
	$node->safe_psql('postgres', q{
		CREATE ROLE app LOGIN;
		GRANT EXECUTE ON FUNCTION le_campaign, le_release, le_transfer TO app});
	my ($out, $err) = ('', '');
	IPC::Run::run([ $Alive::program, 'run', '-d', $connstr, '-U', 'app', '-l', 1, '--', 'touch', "$build/touched" ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	is($? >> 8, 2, 'status 2: a GRANT is missing');
	like($err, qr/GRANT EXECUTE ON FUNCTION public\.le_keep_alive TO app;/, 'and is named');
	ok(!-e "$build/touched", 'nothing was started');
};

subtest 'once' => sub {
	start('exits', 1, options => ['--once'], command => [ 'sh', '-c', 'exit 7' ])
	  ->is_over(7, 'the status of the command');
	my $file = "$build/environment";
	start('tells', 'nightly', options => ['--once'],
		command => [ 'sh', '-c',
			"psql -XAtc \"SELECT '\$LEADER_LOCK' = le_lock_id('nightly')::text, '\$LEADER_TOKEN'::bigint = le_token(\$LEADER_LOCK, '\$LEADER_INSTANCE'), '\$LEADER_INSTANCE' ~ '^tells:', '\$PGOPTIONS'\" > $file" ])
	  ->is_over(0, 'it can connect as leaderctl does');
	is(slurp_file($file), "t|t|t|\n", 'and knows lock, instance and token');
	start('held', 2, options => [ '--once', '--at-most-every', '1h' ], command => ['true'])
	  ->is_over(0, 'a job that is done');
	start('again', 2, options => [ '--once', '--wait', '100ms' ], command => ['true'])
	  ->is_over(3, 'is not done again so soon');
};

# What is done to a leader, and how its command defends itself.  All at once, on
# locks of their own.
my $lock = 10;

sub cases
{
	my (%faults) = @_;
	my @cases;
	foreach my $fault (sort keys %faults)
	{
		foreach my $how (@{ $faults{$fault} })
		{
			(my $name = "$fault $how") =~ tr/ /-/;
			push @cases, { fault => $fault, how => $how, name => $name, lock => ++$lock };
		}
	}
	$_->{a} = start("a-$_->{name}", $_->{lock}, how => $_->{how}) foreach @cases;
	works($_->{a}) foreach @cases;
	$_->{b} = start("b-$_->{name}", $_->{lock}) foreach @cases;
	all_wait(map { $_->{b} } @cases);
	$_->{keeper} = $_->{a}->keeper foreach @cases;
	return @cases;
}

sub gone
{
	my ($case) = @_;
	Alive::await("$case->{name}: its command is gone", sub { !Alive::is_there($case->{a}) });
	return;
}

my @every = ('', 'deaf', 'daemon', 'deaf fork daemon close');

subtest 'faults of clients' => sub {
	my @cases = cases(
		'TERM leaderctl' => \@every,
		'KILL leaderctl' => \@every,
		'STOP leaderctl' => \@every,
		'KILL keeper' => \@every,
		'STOP keeper and KILL leaderctl' => [ '', 'deaf fork daemon close' ],
		'STOP keeper and TERM leaderctl' => [ '', 'deaf fork daemon close' ],
		'KILL both' => [ '', 'deaf close' ],
		'STOP both' => [ '', 'deaf fork daemon close' ]);
	my %excused;
	foreach my $case (@cases)
	{
		my ($a, $fault) = ($case->{a}, $case->{fault});
		$case->{before} = $a->newest->{token};
		# leaderctl before it notices that its keeper is dead
		$a->signal('STOP') if $fault =~ /STOP (leaderctl|both)|KILL both/;
		kill 'KILL', $case->{keeper} if $fault =~ /KILL (keeper|both)/;
		kill 'STOP', $case->{keeper} if $fault =~ /STOP (both|keeper)/;
		$a->signal('KILL') if $fault =~ /KILL (leaderctl|both)/;
		$a->signal('TERM') if $fault =~ /TERM leaderctl/;
		$case->{at} = Alive::now();
	}

	foreach my $case (grep { $_->{fault} =~ /TERM leaderctl|KILL (leaderctl|both)|STOP leaderctl/ } @cases)
	{
		gone($case);
		# who has nobody left to keep him does not wait for his deadline
		my $late = $case->{a}->last_sign - $case->{at};
		cmp_ok($late, '<', 1.5 + Alive::pause($case->{at}, $case->{at} + $late), 'soon')
		  if $case->{fault} =~ /KILL|TERM/;
		works($case->{b});
	}
	foreach my $case (grep { $_->{fault} eq 'KILL keeper' } @cases)
	{
		# it hands over, or begins anew if b was not there just then
		Alive::await("$case->{name}: somebody goes on",
			sub { grep { $_->{token} > $case->{before} } ($case->{a}->records, $case->{b}->records) });
		ok(!(grep { $_->{token} eq $case->{before} && $_->{pid} == $case->{a}->newest->{pid} && kill 0, $_->{pid} } $case->{a}->records),
			'and the command was ended');
	}
	foreach my $case (grep { $_->{fault} eq 'STOP both' } @cases)
	{
		# nobody is there to end it in time: when they wake, at once
		Alive::await("$case->{name}: the lease is over", sub { $case->{b}->last_sign > 0 });
		$excused{ $case->{before} } = Alive::now();
		$case->{a}->signal('CONT');
		kill 'CONT', $case->{keeper};
		gone($case);
		is(join("\n", Alive::judge_woken(\%excused, $case->{a})), '', 'at once when they wake');
	}
	$_->{a}->signal('CONT') foreach @cases;
	judge("$_->{name}", \%excused, $_->{a}, $_->{b}) foreach @cases;
	stop_all(map { ($_->{a}, $_->{b}) } @cases);
};

subtest 'faults of the server' => sub {
	my @cases = cases(
		'lost server' => [ '', 'deaf fork daemon close' ],
		'STOP leaderctl and lost server' => [ '', 'deaf fork daemon close' ],
		'STOP keeper and lost server' => [ '', 'deaf fork daemon close' ]);
	foreach my $case (@cases)
	{
		kill 'STOP', $case->{keeper} if $case->{fault} =~ /STOP keeper/;
		$case->{a}->signal('STOP') if $case->{fault} =~ /STOP leaderctl/;
	}
	$node->stop('immediate');
	gone($_) foreach @cases;
	$node->start;
	my $now = Alive::now();
	foreach my $case (@cases)
	{
		Alive::await("$case->{name}: one of them works",
			sub { $case->{a}->works_since($now) || $case->{b}->works_since($now) });
	}
	$_->{a}->signal('CONT') foreach @cases;
	judge("$_->{name}", {}, $_->{a}, $_->{b}) foreach @cases;
	stop_all(map { ($_->{a}, $_->{b}) } @cases);
};

# A lease counts from before the heartbeat, however late its answer comes; and a
# server process that says nothing is not waited for until the lease is over.
my $backend;

END
{
	local $?;
	kill 'CONT', $backend if $backend;
}

subtest 'late and missing answers' => sub {
	my $socket = $node->host . '/.s.PGSQL.';
	mkdir "$build/proxy";
	my $proxy = Proxy->new("$build/proxy/.s.PGSQL." . $node->port, $socket . $node->port, 0.7);
	my @slow = ('-h', "$build/proxy", '--renew', '1s', '--jitter', '0s');
	my $late = start('late', ++$lock, options => \@slow);
	my $frozen = start('frozen', ++$lock);
	works($_) foreach ($late, $frozen);
	my $successor = start('successor-of-late', $late->{lock});
	all_wait($successor);

	$backend = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'frozen'});
	kill 'STOP', $backend;
	my $token = $frozen->newest->{token};
	my $end = Alive::now() + $lease;

	$proxy->slow;
	my $beats = beats($late);
	Alive::await('heartbeats are answered late', sub { beats($late) > $beats + 2 });
	$proxy->last_answer;
	works($successor);
	judge('late answers', {}, $late, $successor);

	Alive::await('a server process that is frozen', sub { $frozen->works_since($end) });
	is($frozen->newest->{token}, $token, 'does not cost the lead');
	kill 'CONT', $backend;
	$proxy->stop;
	stop_all($late, $successor, $frozen);
};

# libpq would wait for ever for a connection that is asked about too soon.
subtest 'while it connects to a host that does not answer' => sub {
	mkdir "$build/first";
	my $proxy = Proxy->new("$build/first/.s.PGSQL." . $node->port, $node->host . '/.s.PGSQL.' . $node->port);
	my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die;
	my @crowd = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $silent->sockport, Blocking => 0) } 1 .. 5;
	my $connects = sub {
		my $to = sprintf('0100007F:%04X 02', $silent->sockport);
		return grep { /\Q$to\E/ } split /\n/, slurp_file('/proc/net/tcp') };
	my $crowd = 0;
	Alive::await('it takes nobody on', sub { $crowd = $connects->() });

	my $self = start('connects', ++$lock, how => 'deaf fork daemon close',
		options => [ '-h', "$build/first,127.0.0.1", '-p', $node->port . ',' . $silent->sockport ]);
	works($self);
	my $keeper = $self->keeper;
	kill 'STOP', $keeper;
	$proxy->stop;
	Alive::await('it connects', sub { $connects->() > $crowd });
	my $at = Alive::now();
	$self->signal('TERM');
	Alive::await('its command is gone', sub { !Alive::is_there($self) });
	my $late = $self->last_sign - $at;
	cmp_ok($late, '<', 1.5 + Alive::pause($at, $at + $late), 'soon, though its keeper is stopped');
	judge('connecting', {}, $self);
	$self->is_over(0, 'it stops');
};

# Who is frozen while it waits is elected all the same.
subtest 'elected while it was frozen' => sub {
	my @cases = map { { name => $_, lock => ++$lock } } ('stops', 'wakes late');
	foreach my $case (@cases)
	{
		(my $name = $case->{name}) =~ tr/ /-/;
		$case->{a} = start("a-$name", $case->{lock});
		works($case->{a});
		$case->{b} = start("b-$name", $case->{lock});
	}
	my ($stops, $late) = @cases;
	all_wait(map { $_->{b} } @cases);
	foreach my $case (@cases)
	{
		$case->{b}->signal('STOP');
		$case->{a}->signal('TERM');
		$case->{a}->is_over(0, 'hands over to one that is frozen');
		like($case->{a}->said, qr/has handed lock/, 'as it says');
	}
	$stops->{b}->signal('TERM');
	$stops->{b}->signal('CONT');
	$stops->{b}->is_over(0, 'told to stop, it stops');
	$late->{c} = start('c-wakes-late', $late->{lock});
	works($late->{c});
	$late->{b}->signal('CONT');
	all_wait($late->{b});
	foreach my $self ($stops->{b}, $late->{b})
	{
		my @records = $self->records;
		is(scalar(@records), 0, "$self->{name}: and has not begun");
		unlike($self->said, qr/leads lock/, 'nor says so');
	}
	judge('wakes late', {}, $late->{a}, $late->{b}, $late->{c});
	stop_all($late->{b}, $late->{c});
};

done_testing();
