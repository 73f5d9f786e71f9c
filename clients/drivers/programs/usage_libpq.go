package main

@@ go-imports
@@ lib/pq-imports
@@ go
@@ lib/pq
@@ lib/pq-work
