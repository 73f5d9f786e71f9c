# A psql session that stays, for tests that need more than one statement of it
# or want to do something else while it waits.  The same on all versions, which
# PostgreSQL::Test::Cluster's own is not.

package Session;

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;

# Connect with a connection string.  Errors come as their SQLSTATE alone.
sub new
{
	my ($class, $connstr) = @_;
	my $self = bless({ in => '', out => '' }, $class);
	$self->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $connstr ],
		'<', \$self->{in}, '>&', \$self->{out},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $self;
}

# Send statements, do not wait for what they say.
sub send
{
	my ($self, $sql) = @_;
	$self->{out} = '';
	$self->{in} .= "$sql;\n\\echo done\n";
	$self->{run}->pump_nb;
	return;
}

# Are the statements last sent done?
sub done
{
	my ($self) = @_;
	$self->{run}->pump_nb;
	return $self->{out} =~ /^done\n\z/m;
}

# What the statements last sent have said, errors too, when they are done.
sub receive
{
	my ($self) = @_;
	$self->{run}->pump until $self->{out} =~ s/\n?^done\n\z//m;
	return $self->{out};
}

sub say
{
	my ($self, $sql) = @_;
	$self->send($sql);
	return $self->receive;
}

sub pid
{
	my ($self) = @_;
	return $self->say('SELECT pg_backend_pid()');
}

sub quit
{
	my ($self) = @_;
	$self->{in} .= "\\q\n";
	$self->{run}->finish;
	return;
}

1;
