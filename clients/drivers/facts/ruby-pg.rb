# What docs/drivers.md says of Ruby's pg.
require 'pg'

def fact(what, wanted, got) = puts(wanted == got ? "ok #{what}" : "not ok #{what}: wanted #{wanted}, got #{got}")

def error
  yield
rescue PG::Error => e
  e
end

db = PG.connect
row = db.exec("SELECT elected, token, le_is_leader(9, 'y') AS no FROM le_campaign(9, 'x')")[0]
fact('false is "f"', 'f', row['no'])
fact('which is true', 'yes', row['no'] ? 'yes' : 'no')
fact('a token is text', String, row['token'].class)
e = error { db.exec("SELECT 1; SELECT le_try_acquire(8, 'x')") }
fact('several statements are a block', PG::ActiveSqlTransaction, e.class)
fact('its code', '25001', e.result.error_field(PG::PG_DIAG_SQLSTATE))
fact('LE001 has no class', PG::ServerError, error { db.exec("SELECT le_guard(8, 'x')") }.class)

rows = -> { PG.connect.exec('SELECT count(*) FROM plain WHERE n < 0').getvalue(0, 0) }
thread = Thread.new do
  db.transaction do
    db.exec('INSERT INTO plain VALUES (-1)')
    sleep
  end
end
sleep 0.01 until db.transaction_status == PG::PQTRANS_INTRANS && thread.status == 'sleep'
thread.kill
thread.join
fact('transaction commits at Thread#kill', '1', rows.call)
db.transaction do
  db.exec('INSERT INTO plain VALUES (-2)')
  break
end
fact('and at break', '2', rows.call)
db.transaction do
  db.exec('INSERT INTO plain VALUES (-3)')
  error { db.exec('no SQL') }
end
fact('COMMIT after an error that was caught is a silent ROLLBACK', '2', rows.call)
