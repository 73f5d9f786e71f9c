# What docs/drivers.md says of Ruby's pg.
require 'pg'

def fact(what, wanted, got) = puts(wanted == got ? "ok #{what}" : "not ok #{what}: wanted #{wanted}, got #{got}")

db = PG.connect
row = db.exec("SELECT elected, token, le_is_leader(9, 'y') AS no FROM le_campaign(9, 'x')")[0]
fact('false is "f"', 'f', row['no'])
fact('which is true', 'yes', row['no'] ? 'yes' : 'no')
fact('a token is text', String, row['token'].class)
begin
  db.exec("SELECT 1; SELECT le_try_acquire(8, 'x')")
rescue PG::ActiveSqlTransaction => e
  fact('25001 has a class', '25001', e.result.error_field(PG::PG_DIAG_SQLSTATE))
end
begin
  db.exec("SELECT le_guard(8, 'x')")
rescue PG::Error => e
  fact('LE001 has none', PG::ServerError, e.class)
end
