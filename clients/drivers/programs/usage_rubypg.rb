@@ ruby
@@ ruby-pg
@@ ruby-pg-work
@@ ruby-main
