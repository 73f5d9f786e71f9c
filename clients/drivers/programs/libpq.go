package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"
	"golang.org/x/sys/unix"
)

var ctx = context.Background()

@@ go
@@ lib/pq

func prepare() {
	var err error
	if db, err = sql.Open("postgres", "connect_timeout=3 sslmode=disable"); err != nil {
		panic(err)
	}
}

func runGuarded(token int64, work func(func(string) error) error) error {
	return guarded(ctx, db, token, func(tx *sql.Tx) error {
		return work(func(text string) error {
			_, err := tx.Exec(text)
			return err
		})
	})
}

@@ file main.go
