# leaderctl run: the command runs while its leaderctl leads, and is gone before
# the lease is over, whatever happens to leaderctl, its keeper, the server, and
# whatever the command does against it; so there are never two.
#
# Each command writes lines with the machine's clock: what it is told, and that
# it is alive.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(clock_gettime usleep CLOCK_BOOTTIME);

my $limit = $PostgreSQL::Test::Utils::timeout_default;
my $source = "$FindBin::RealBin/../leaderctl";    # from t/, where scripts/test runs it
my $build = PostgreSQL::Test::Utils::tempdir();
my $leaderctl = "$build/leaderctl";
chomp(my $pg_config = `which pg_config`);
is( system("cp $source/*.[ch] $source/Makefile $build && make -s -C $build PG_CONFIG=$pg_config COPT=-Werror"),
	0, 'leaderctl builds without the server\'s development files');

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');
$node->safe_psql('postgres', 'CREATE DATABASE empty');
my $connstr = $node->connstr('postgres');

# The command: tells each 5 ms that it is alive.
my $alive = "$build/alive";
append_to_file($alive, <<'PERL');
#!/usr/bin/perl
use strict; use warnings;
use POSIX qw(setsid);
use Time::HiRes qw(clock_gettime usleep CLOCK_BOOTTIME);
my ($file, $how) = (shift, shift // '');
open(my $out, '>>', $file) or die; $out->autoflush;
$SIG{TERM} = 'IGNORE' if $how =~ /deaf/;
if ($how =~ /daemon/ && fork() == 0) { setsid(); exit if fork(); $0 = 'grandchild' }
close(STDIN), close(STDOUT), close(STDERR) if $how =~ /close/;
for (;;)
{
	print $out join(' ', clock_gettime(CLOCK_BOOTTIME), $$, $ENV{LEADER_TOKEN}), "\n";
	usleep(5000);
}
PERL
chmod 0755, $alive;

my @started;

sub start
{
	my ($name, $options, @command) = @_;
	my $self = { name => $name, file => "$build/$name" };
	unlink $self->{file};
	@command = ($alive, $self->{file}) unless @command;
	$self->{run} = IPC::Run::start(
		[ $leaderctl, 'run', '-d', $connstr, '--lease', '2s', '--renew', '500ms', '--jitter', '100ms',
			'--kill-after', '300ms', @{$options}, '--', @command ],
		'<', \undef, '>', "$self->{file}.out", '2>', "$self->{file}.err");
	$self->{pid} = $self->{run}{KIDS}[0]{PID};
	push @started, $self;
	return $self;
}

END
{
	local $?;
	kill 'KILL', $_->{pid} foreach grep { !$_->{over} } @started;
}

sub await
{
	my ($name, $condition) = @_;
	my $end = time() + $limit;
	my $met;
	until ($met = $condition->())
	{
		last if time() > $end;
		usleep(5_000);
	}
	ok($met, $name);
	return;
}

# The lines that a command has written: time, pid, token
sub lines
{
	my ($self) = @_;
	my @lines = -e $self->{file} ? split /\n/, slurp_file($self->{file}) : ();
	@lines = map { [split] } grep { /^\S+ \S+ \S+$/ } @lines;
	return @lines;
}

sub works
{
	my ($self) = @_;
	await("$self->{name} works", sub { lines($self) > 3 });
	return;
}

sub is_over
{
	my ($self, $status, $name) = @_;
	$self->{run}->finish;
	$self->{over} = 1;
	is($self->{run}->full_result(0), $status << 8, $name) or diag(slurp_file("$self->{file}.err"));
	return;
}

# None of these ran while another one did: by pairs, the later begins when all
# of the earlier's are gone.
sub never_two
{
	my ($name, @all) = @_;
	my %span;
	foreach my $self (@all)
	{
		foreach my $line (lines($self))
		{
			my ($at, undef, $token) = @{$line};
			$span{$token}[0] //= $at;
			$span{$token}[1] = $at if $at > ($span{$token}[1] // 0);
		}
	}
	my @order = sort { $span{$a}[0] <=> $span{$b}[0] } keys %span;
	my @overlaps = grep { $span{ $order[$_] }[1] >= $span{ $order[$_ + 1] }[0] } 0 .. $#order - 1;
	is(scalar(@overlaps), 0, "$name: never two at once, in " . @order . ' terms');
	is("@order", join(' ', sort { $a <=> $b } @order), 'and tokens grow');
	return;
}

sub processes_of
{
	my ($self) = @_;
	return `pgrep -f '$self->{file}( |\$)' | grep -vx $self->{pid}` =~ /\d/;
}

subtest 'wrong from the start' => sub {
	foreach my $case (
		[ [], qr/no lock was given/ ],
		[ [ '-l', 1, '--lease', '1s' ], qr/shorter than twice --renew/ ],
		[ [ '-l', 1, '--lease', '10' ], qr/"10" is not a duration/ ],
		[ [ '-l', 1, '--priority', '10' ], qr/outside the range 0 to 9/ ],
		[ [ '-l', '9223372036854775808' ], qr/out of the range of bigint/ ],
		[ [ '-l', 1, '-d', $node->connstr('empty') ], qr/has no extension leader_election/ ])
	{
		my ($options, $expected) = @{$case};
		my ($out, $err) = ('', '');
		IPC::Run::run([ $leaderctl, 'run', '-d', $connstr, @{$options}, '--', 'touch', "$build/touched" ],
			'<', \undef, '>', \$out, '2>', \$err);
		is($? >> 8, 2, "status 2: @{$options}[0 .. ($#{$options} > 3 ? 3 : $#{$options})]");
		like($err, $expected, 'says why');
	}
	$node->safe_psql('postgres', q{
		CREATE ROLE app LOGIN;
		GRANT EXECUTE ON FUNCTION le_campaign, le_release, le_transfer TO app});
	my ($out, $err) = ('', '');
	IPC::Run::run([ $leaderctl, 'run', '-d', $connstr, '-U', 'app', '-l', 1, '--', 'touch', "$build/touched" ],
		'<', \undef, '>', \$out, '2>', \$err);
	is($? >> 8, 2, 'status 2: a GRANT is missing');
	like($err, qr/GRANT EXECUTE ON FUNCTION public\.le_keep_alive TO app;/, 'and is named');
	ok(!-e "$build/touched", 'nothing was started');
};

subtest 'once' => sub {
	is_over(start('exits', [ '-l', 1, '--once' ], 'sh', '-c', 'exit 7'), 7, 'the status of the command');
	my $file = "$build/environment";
	is_over(start('tells', [ '-l', 'nightly', '--once', '--instance', 'me' ], 'sh', '-c',
			"PGAPPNAME=x psql -XAtc \"SELECT '\$LEADER_LOCK' = le_lock_id('nightly')::text, '\$LEADER_TOKEN'::bigint = le_token(\$LEADER_LOCK, '\$LEADER_INSTANCE'), '\$LEADER_INSTANCE' ~ '^me:', '\$PGOPTIONS'\" > $file"),
		0, 'it can connect as leaderctl does');
	is(slurp_file($file), "t|t|t|\n", 'and knows lock, instance and token');
	is_over(start('held', [ '-l', 2, '--once', '--at-most-every', '1h' ], 'true'), 0, 'a job that is done');
	is_over(start('again', [ '-l', 2, '--once', '--wait', '100ms' ], 'true'), 3, 'is not done again so soon');
};

subtest 'hand-over' => sub {
	my ($a, $b) = (start('a1', [ '-l', 3 ]));
	works($a);
	$b = start('b1', [ '-l', 3 ]);
	await('another one waits', sub {
			$node->safe_psql('postgres', 'SELECT count(*) FROM leader_waiting WHERE lock_id = 3') eq '1' });
	is(scalar(lines($b)), 0, 'and runs nothing');
	kill 'TERM', $a->{pid};
	is_over($a, 0, 'SIGTERM');
	works($b);
	never_two('hand-over', $a, $b);
	my $before = lines($b);
	await('it goes on beyond its first lease', sub { (lines($b))[-1][0] > (lines($b))[0][0] + 3 });
	is($node->safe_psql('postgres', 'SELECT le_request_resign(3)'), 't', 'asked to resign');
	my $token = (lines($b))[-1][2];
	await('begins another term, as nobody else is there', sub { (lines($b))[-1][2] != $token });
	kill 'TERM', $b->{pid};
	is_over($b, 0, 'SIGTERM');
	never_two('resigned', $b);
};

# What is done to a leader, and how its command defends itself
my $lock = 10;
foreach my $how ('plain', 'deaf', 'daemon', 'deaf daemon close')
{
	foreach my $fault ('KILL leaderctl', 'STOP leaderctl', 'KILL keeper', 'STOP both', 'immediate stop',
		'STOP keeper and immediate stop')
	{
		next if $how ne 'plain' && $how ne 'deaf daemon close' && $fault =~ /keeper|stop/;
		subtest "$fault, $how" => sub {
			$lock++;
			(my $name = "$fault-$how") =~ tr/ /-/;
			my $a = start("a-$name", [ '-l', $lock ], $alive, "$build/a-$name", $how);
			works($a);
			my $b = start("b-$name", [ '-l', $lock ]);
			my ($keeper) = `pgrep -P $a->{pid}` =~ /(\d+)/;
			my $at = clock_gettime(CLOCK_BOOTTIME);
			kill 'KILL', $a->{pid} if $fault eq 'KILL leaderctl';
			kill 'STOP', $a->{pid} if $fault =~ /STOP (leaderctl|both)/;
			kill 'KILL', $keeper if $fault eq 'KILL keeper';
			kill 'STOP', $keeper if $fault =~ /STOP (keeper|both)/;
			$node->stop('immediate') if $fault =~ /immediate stop/;
			if ($fault eq 'STOP both')
			{
				# nobody is there to end it in time: when they wake, at once
				usleep(2_500_000);
				kill 'CONT', $a->{pid}, $keeper;
			}
			await('its command is gone', sub { !processes_of($a) });
			my $last = (lines($a))[-1][0];
			cmp_ok($last, '<', $at + 2, 'within its lease') if $fault ne 'STOP both' && $fault ne 'KILL keeper';
			$node->start if $fault =~ /immediate stop/;
			if ($fault eq 'KILL keeper')
			{
				await('leaderctl goes on', sub { my @l = lines(lines($b) ? $b : $a); @l && $l[-1][0] > $last });
			}
			elsif ($fault =~ /immediate stop/)
			{
				await('one of them works', sub { (lines($a))[-1][0] > $last || lines($b) > 3 });
			}
			else
			{
				works($b);
			}
			never_two($name, $a, $b) unless $fault eq 'STOP both';
			kill 'CONT', $a->{pid} if $fault =~ /STOP/;
			kill 'TERM', $_->{pid} foreach grep { kill 0, $_->{pid} } ($a, $b);
			foreach my $self ($a, $b)
			{
				$self->{run}->finish;
				$self->{over} = 1;
			}
			ok(!processes_of($_), "nothing is left of $_->{name}") foreach ($a, $b);
		};
	}
}

done_testing();
