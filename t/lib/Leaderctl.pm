# leaderctl for the TAP tests: builds it, starts it, looks at what it has said.
package Leaderctl;

use strict;
use warnings;

use FindBin;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $limit = $PostgreSQL::Test::Utils::timeout_default;
my ($dir, $program);
my @all;

# Build it, warnings being errors; its path.
sub build
{
	my $source = "$FindBin::RealBin/../leaderctl";
	chomp(my $pg_config = $ENV{PG_CONFIG} // `which pg_config`);
	$dir = PostgreSQL::Test::Utils::tempdir();
	$program = "$dir/leaderctl";
	system("cp $source/*.[ch] $source/Makefile $dir && make -s -C $dir PG_CONFIG=$pg_config COPT=-Werror leaderctl") == 0
	  or die 'leaderctl does not build';
	return $program;
}

# A file of its own for this name
sub path
{
	my ($name) = @_;
	return "$dir/$name";
}

# Start "leaderctl arguments"; its messages go to a file.
sub start
{
	my ($class, $name, @arguments) = @_;
	my $self = bless { name => $name, err => path("$name.err"), out => path("$name.out") }, $class;
	unlink $self->{err}, $self->{out};
	$self->{run} = IPC::Run::start([ $program, @arguments ],
		'<', \undef, '>', $self->{out}, '2>', $self->{err}, IPC::Run::timeout(2 * $limit));
	$self->{pid} = $self->{run}{KIDS}[0]{PID};
	push @all, $self;
	return $self;
}

# Run it to its end: status, output, messages.
sub run
{
	my (@arguments) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ $program, @arguments ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($limit));
	return ($? & 127 ? 128 + ($? & 127) : $? >> 8, $out, $err);
}

sub said { my ($self) = @_; return -e $self->{err} ? slurp_file($self->{err}) : '' }

# How many processes have this in their command line?
sub processes
{
	my ($text) = @_;
	open(my $pgrep, '-|', 'pgrep', '-fc', '--', quotemeta $text) or die "pgrep: $!";
	my $count = <$pgrep>;
	close $pgrep;
	return $count + 0;
}

# Wait for a condition; false: it has not been met in time.
sub met
{
	my ($condition) = @_;
	my $end = time() + $limit;
	my $met;
	until ($met = $condition->())
	{
		return 0 if time() > $end;
		usleep(10_000);
	}
	return $met;
}

# Wait until it has said this so often.
sub says
{
	my ($self, $pattern, $name, $count) = @_;
	my $said = met(sub { my @found = $self->said =~ /$pattern/g; @found >= ($count // 1) });
	ok($said, $name // "$self->{name} says $pattern") or diag($self->said);
	return;
}

sub signal
{
	my ($self, $signal) = @_;
	kill $signal, $self->{pid} unless $self->{over};
	return;
}

# Wait until it has exited, and tell its status.
sub status
{
	my ($self) = @_;
	$self->{run}->finish;
	$self->{over} = 1;
	my $status = $self->{run}->full_result(0);
	return $status & 127 ? 128 + ($status & 127) : $status >> 8;
}

# End it as an operator would.
sub stop
{
	my ($self) = @_;
	$self->signal('TERM');
	return $self->status;
}

END
{
	local $?;
	kill 'KILL', $_->{pid} foreach grep { !$_->{over} } @all;
}

1;
