package Session;

# One connection to the server, in the frontend/backend protocol 3.0.
#
# The fuzzer speaks it by itself because it wants what a driver hides: to send
# and to collect at different times, every notice, the transaction status that
# comes with each answer, and the pid of the other side.  Strings are bytes.

use strict;
use warnings;
use IO::Select;
use IO::Socket::UNIX;
use Time::HiRes qw(time);

sub new
{
	my ($class, %where) = @_;
	my $self = bless {%where, buffer => '', status => ''}, $class;

	$self->{socket} = IO::Socket::UNIX->new(Peer => $where{socket_path})
	  or die "could not connect to $where{socket_path}: $!\n";
	my %startup = (
		user => $where{user} // 'postgres',
		database => $where{database} // 'postgres',
		client_encoding => 'UTF8',
		application_name => $where{name} // 'fuzz');
	my $body = pack('N', 196608) . join('', map { "$_\0$startup{$_}\0" } sort keys %startup) . "\0";
	$self->put(pack('N', 4 + length $body) . $body);
	my $answer = $self->collect(30);
	die "could not log in: $answer->{message}\n" if defined $answer->{sqlstate};
	return $self;
}

sub pid { return $_[0]{pid} }

sub put
{
	my ($self, $bytes) = @_;
	my $socket = $self->{socket};
	local $SIG{PIPE} = 'IGNORE';
	while (length $bytes)
	{
		my $n = syswrite($socket, $bytes);
		return unless defined $n;    # the answer will tell
		substr($bytes, 0, $n, '');
	}
	return;
}

# Send one simple query.
sub send_query
{
	my ($self, $sql) = @_;
	$self->put('Q' . pack('N', 5 + length $sql) . "$sql\0");
	return;
}

# Send the parts of a pipeline: extended queries with one Sync behind them.
sub send_pipeline
{
	my ($self, @sql) = @_;
	my $bytes = '';
	foreach my $sql (@sql)
	{
		foreach my $message (['P', "\0$sql\0" . pack('n', 0)], ['B', "\0\0" . pack('nnn', 0, 0, 0)],
			['D', "P\0"], ['E', "\0" . pack('N', 0)])
		{
			$bytes .= $message->[0] . pack('N', 4 + length $message->[1]) . $message->[1];
		}
	}
	$self->put($bytes . 'S' . pack('N', 4));
	return;
}

# Read to ReadyForQuery.  Returns undef if that takes too long, else
# {rows, notices, warnings, tag, sqlstate, message, status}; status is I, T or E,
# and empty if the connection is lost.  Warnings have a sqlstate and a message.
sub collect
{
	my ($self, $seconds) = @_;
	return delete $self->{peeked} if $self->{peeked};
	my $answer = $self->{answer} //= {rows => [], notices => [], warnings => [], tag => ''};
	my $end = time() + $seconds;

	for (;;)
	{
		while (length $self->{buffer} >= 5)
		{
			my ($type, $length) = unpack('aN', $self->{buffer});
			last if length $self->{buffer} < $length + 1;
			my $body = substr($self->{buffer}, 5, $length - 4);
			substr($self->{buffer}, 0, $length + 1, '');
			if ($type eq 'Z')
			{
				$answer->{status} = $body;
				delete $self->{answer};
				return $answer;
			}
			$self->message($answer, $type, $body);
		}
		my $left = $end - time();
		return if $left <= 0 || !IO::Select->new($self->{socket})->can_read($left);
		my $n = sysread($self->{socket}, $self->{buffer}, 65536, length $self->{buffer});
		if (!$n)
		{
			$answer->{status} = '';
			$answer->{sqlstate} //= 'lost';
			delete $self->{answer};
			return $answer;
		}
	}
}

# As collect(), but the answer stays to be collected.
sub peek
{
	my ($self, $seconds) = @_;
	return $self->{peeked} //= $self->collect($seconds);
}

sub message
{
	my ($self, $answer, $type, $body) = @_;
	if ($type eq 'D')
	{
		my @row;
		my $at = 2;
		foreach (1 .. unpack('n', $body))
		{
			my $length = unpack('l>', substr($body, $at, 4));
			push @row, $length < 0 ? undef : substr($body, $at + 4, $length);
			$at += 4 + ($length < 0 ? 0 : $length);
		}
		push @{$answer->{rows}}, \@row;
	}
	elsif ($type eq 'E' || $type eq 'N')
	{
		my %field = map { (substr($_, 0, 1) => substr($_, 1)) } split /\0/, $body;
		if ($type eq 'N')
		{
			push @{$answer->{notices}}, $field{M} if $field{V} eq 'NOTICE';
			push @{$answer->{warnings}}, {sqlstate => $field{C}, message => $field{M}} if $field{V} eq 'WARNING';
		}
		else
		{
			$answer->{sqlstate} = $field{C};
			$answer->{message} = $field{M};
		}
	}
	elsif ($type eq 'C')
	{
		$answer->{tag} = substr($body, 0, -1);
	}
	elsif ($type eq 'K')
	{
		@{$self}{qw(pid key)} = unpack('NN', $body);
	}
	elsif ($type eq 'R' && unpack('N', $body) != 0)
	{
		die "the server wants a password\n";
	}
	return;
}

# One query and its answer.
sub query
{
	my ($self, $sql, $seconds) = @_;
	$self->send_query($sql);
	return $self->collect($seconds // 60)
	  // {rows => [], notices => [], warnings => [], tag => '', status => '', sqlstate => 'late'};
}

# As query(), for statements that must succeed.  Returns the rows.
sub must
{
	my ($self, $sql) = @_;
	my $answer = $self->query($sql);
	die "$answer->{sqlstate} " . ($answer->{message} // '') . ": $sql\n" if defined $answer->{sqlstate};
	return $answer->{rows};
}

sub cancel
{
	my ($self) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $self->{socket_path}) or return;
	syswrite($socket, pack('NNNN', 16, 80877102, $self->{pid}, $self->{key}));
	sysread($socket, my $nothing, 1);    # the server closes when it has done it
	return;
}

sub disconnect
{
	my ($self) = @_;
	close $self->{socket};
	return;
}

1;
