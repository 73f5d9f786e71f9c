@@ ruby
@@ ruby-pg

DB2 = PG.connect

def run_guarded(token, &work) = guarded(DB2, token, &work)

def execute(db, sql) = db.exec(sql)

@@ file main.rb
