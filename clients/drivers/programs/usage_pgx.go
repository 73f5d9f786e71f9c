package main

@@ go-imports
@@ pgx-imports
@@ go
@@ pgx
@@ pgx-work
