<?php
// What docs/drivers.md says of PHP.
function fact($what, $wanted, $got) {
	echo $wanted === $got ? "ok $what\n" : "not ok $what: wanted " . var_export($wanted, true) . ', got ' . var_export($got, true) . "\n";
}

$no = "SELECT le_is_leader(9, 'y')";
$db = new PDO('pgsql:');
fact('a false is false', false, $db->query($no)->fetchColumn());
fact('fetchColumn() of no row is false, too', false, $db->query("$no WHERE false")->fetchColumn());
fact('a token is an integer', 'integer', gettype($db->query("SELECT token FROM le_campaign(9, 'x')")->fetchColumn()));
fact('pg_query() brings "f"', 'f', pg_fetch_result(pg_query(pg_connect(''), $no), 0, 0));
fact('which is true', true, (bool) 'f');
$db->beginTransaction();
try {
	$db->query("SELECT le_try_acquire(8, 'x')");
} catch (PDOException $e) {
	fact('a block', '25001', $e->getCode());
}
