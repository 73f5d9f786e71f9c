package main

@@ go-imports
@@ pgx-imports

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

var ctx = context.Background()

@@ go
@@ pgx
@@ pgx-work

func runGuarded(token int64, run func(func(string) error) error) error {
	return guarded(ctx, db, token, func(ctx context.Context, tx pgx.Tx) error {
		return run(func(text string) error {
			_, err := tx.Exec(ctx, text)
			return err
		})
	})
}

@@ file main.go
