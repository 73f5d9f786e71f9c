@@ ruby
@@ sequel
@@ sequel-work
@@ ruby-main
