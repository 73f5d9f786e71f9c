@@ ruby
@@ sequel

DB = Sequel.postgres(test: false)

def run_guarded(token, &work) = guarded(DB, token, &work)

def execute(db, sql) = db.run(sql)

@@ file main.rb
