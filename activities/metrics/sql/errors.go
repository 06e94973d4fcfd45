package sql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aviary-rollouts/aviary/activities/metrics"
)

const busyPause = 10 * time.Second // when the database has no connection free

// impossible is an error that asking again does not mend: the query has to change, or the tables or rights that it asks about.
type impossible struct{ reason string }

func (e *impossible) Error() string { return e.reason }

func impossiblef(format string, args ...any) error { return &impossible{fmt.Sprintf(format, args...)} }

// within does one step with the database in the time that it may take.
func (p *Provider) within(ctx context.Context, step func(context.Context) error) error {
	bound, cancel := context.WithTimeout(ctx, p.settings.Timeout+slack)
	defer cancel()
	err := step(bound)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("ask PostgreSQL at %s: %w", p.host, ctx.Err())
	}
	return p.told(err)
}

// told is an error as it may be told: without the DSN, and without what PostgreSQL adds as details, which may be rows. The errors of pgx hold
// the whole configuration, so none is wrapped.
func (p *Provider) told(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return p.refused(refused)
	}
	var never *impossible
	if errors.As(err, &never) {
		return err
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		err = connect.Unwrap()
	}
	return fmt.Errorf("ask PostgreSQL at %s: %s", p.host, p.redact(oneLine(err)))
}

// oneLine tells each of an error's lines once: pgx tries a server with and without TLS, and has one for each.
func oneLine(err error) string {
	lines := strings.Split(err.Error(), "\n")
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "; ")
}

// refused tells what PostgreSQL says.
func (p *Provider) refused(e *pgconn.PgError) error {
	text := fmt.Sprintf("PostgreSQL at %s: %s (SQLSTATE %s)", p.host, p.redact(e.Message), e.Code)
	switch {
	case e.Code == "57014":
		return fmt.Errorf("%s: a query may take %s (timeout in the worker's settings); is there an index on the time?", text, p.settings.Timeout)
	case e.Code == "53300": // too_many_connections
		return &metrics.Busy{RetryAfter: busyPause, Err: errors.New(text)}
	case e.Code == "25006": // read_only_sql_transaction
		return impossiblef("%s: a query may only read", text)
	// Syntax errors, unknown tables and columns, missing rights; what the server can't do.
	case strings.HasPrefix(e.Code, "42"), strings.HasPrefix(e.Code, "0A"):
		return &impossible{text}
	}
	return errors.New(text)
}

func (p *Provider) redact(text string) string {
	if p.password == "" {
		return text
	}
	return strings.ReplaceAll(text, p.password, "…")
}
