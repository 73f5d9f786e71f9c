package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn" // of pgx 4; of pgx 5: github.com/jackc/pgx/v5/pgconn
	"github.com/jackc/pgx/v4"
	"golang.org/x/sys/unix"
)

var ctx = context.Background()

@@ go
@@ pgx

var db2 *pgx.Conn

func prepare() {
	var err error
	if db2, err = pgx.Connect(ctx, ""); err != nil {
		panic(err)
	}
}

func runGuarded(token int64, work func(func(string) error) error) error {
	return guarded(ctx, db2, token, func(tx pgx.Tx) error {
		return work(func(text string) error {
			_, err := tx.Exec(ctx, text)
			return err
		})
	})
}

@@ file main.go
