package main

@@ go-imports
@@ lib/pq-imports

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

var ctx = context.Background()

@@ go
@@ lib/pq

func runGuarded(token int64, work func(func(string) error) error) error {
	return guarded(ctx, db, token, func(tx *sql.Tx) error {
		return work(func(text string) error {
			_, err := tx.Exec(text)
			return err
		})
	})
}

@@ file main.go
