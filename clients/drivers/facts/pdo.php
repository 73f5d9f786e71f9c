<?php
// What docs/drivers.md says of PHP.
function fact($what, $wanted, $got) {
	echo $wanted === $got ? "ok $what\n" : "not ok $what: wanted " . var_export($wanted, true) . ', got ' . var_export($got, true) . "\n";
}

function error($call) {
	try {
		$call();
	} catch (PDOException $e) {
		return $e;
	}
	return new PDOException('none');
}

$no = "SELECT le_is_leader(9, 'y')";
$db = new PDO('pgsql:');
fact('a false is false', false, $db->query($no)->fetchColumn());
fact('fetchColumn() of no row is false, too', false, $db->query("$no WHERE false")->fetchColumn());
fact('a token is an integer', 'integer', gettype($db->query("SELECT token FROM le_campaign(9, 'x')")->fetchColumn()));
fact('pg_query() brings "f"', 'f', pg_fetch_result(pg_query(pg_connect(''), $no), 0, 0));
fact('which is true', true, (bool) 'f');
$db->beginTransaction();
$e = error(fn () => $db->query("SELECT le_try_acquire(8, 'x')"));
fact('a block', '25001', $e->getCode());
fact('errorInfo', '25001', $e->errorInfo[0]);
fact('COMMIT after an error that was caught is a silent ROLLBACK', true, $db->commit());
$e = error(fn () => new PDO('pgsql:host=/nowhere'));
fact('getCode() of an error of the connect', 7, $e->getCode());
fact('its errorInfo', '08006', $e->errorInfo[0]);

// a listener that does not answer
$silent = stream_socket_server('tcp://127.0.0.1:0');
$dsn = 'pgsql:connect_timeout=1;sslmode=disable;host=127.0.0.1;port=' . explode(':', stream_socket_get_name($silent, false))[1];
$begin = hrtime(true);
error(fn () => new PDO($dsn, null, null, [PDO::ATTR_TIMEOUT => 3]));
$took = (hrtime(true) - $begin) / 1e9;
fact('ATTR_TIMEOUT overrides connect_timeout', true, 2.5 < $took && $took < 10);
