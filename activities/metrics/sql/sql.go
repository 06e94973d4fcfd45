// Package sql is the metrics provider for PostgreSQL: queries of one's own over one's own tables.
//
// A definition's query answers with a row per version of what happened in (@from, @to]. Both are by the database's clock, and all queries of a
// poll see the same moment: they run in one read-only transaction. The cursor is how far the rows were read. Rows that become visible
// later, with a time before that, are lost unless Settings.Delay covers them.
package sql

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

const (
	queryTimeout   = 10 * time.Second
	slack          = 2 * time.Second // for the database to give up by itself before its client does
	maxConnections = 2
	idle           = 5 * time.Minute // after which a connection is closed
	firstLook      = time.Minute     // what the first poll asks for, to see that there is an answer
	longest        = time.Hour       // that one poll asks for; after a longer pause the next ones catch up
)

// Settings of a Provider.
type Settings struct {
	DSN     string        // a URL or key=value words, as of libpq; it is never told in an error beyond its host
	Delay   time.Duration // how old rows are once they are all there
	Timeout time.Duration // of connecting, and of one query; 0: 10 s
}

// Provider samples one database. It is safe for concurrent use.
type Provider struct {
	settings Settings
	pool     *pgxpool.Pool
	host     string // as errors tell it
	password string // as no error may tell it
}

var _ metrics.Provider = (*Provider)(nil)

// New is a Provider. It does not connect yet. Errors: a DSN that is none, without telling it.
func New(s Settings) (*Provider, error) {
	s.Timeout = cmp.Or(s.Timeout, queryTimeout)
	c, err := pgxpool.ParseConfig(s.DSN)
	if err != nil { // which would tell the DSN
		return nil, errors.New("sql metrics: the dsn can't be read, want postgres://user:password@host/database or host=… user=… password=… dbname=…")
	}
	c.MaxConns, c.MinConns, c.MinIdleConns, c.MaxConnIdleTime = maxConnections, 0, 0, idle
	c.ConnConfig.ConnectTimeout = s.Timeout
	// Nothing is kept between transactions, for poolers such as PgBouncer.
	c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	if c.ConnConfig.RuntimeParams["application_name"] == "" {
		c.ConnConfig.RuntimeParams["application_name"] = "aviary"
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		return nil, errors.New("sql metrics: the dsn can't be used")
	}
	host := net.JoinHostPort(c.ConnConfig.Host, strconv.Itoa(int(c.ConnConfig.Port)))
	return &Provider{settings: s, pool: pool, host: host, password: c.ConnConfig.Password}, nil
}

// Close closes the connections. The Provider can't be used any more.
func (p *Provider) Close() { p.pool.Close() }

// Sample asks for what happened since the cursor. Errors: *metrics.Rejected for a definition that can't be; at the first poll also for one that the
// database refuses; later that is a passing fault, as is an answer without the numbers: nothing counts as zero because it is missing.
// *metrics.Busy for a database without a free connection.
func (p *Provider) Sample(ctx context.Context, request metrics.Request) (metrics.Samples, error) {
	plan, err := planOf(request)
	if err != nil {
		return metrics.Samples{}, &metrics.Rejected{Reason: err.Error()}
	}
	before, err := decode(request.Cursor)
	switch {
	case errors.Is(err, metrics.ErrNewer):
		return metrics.Samples{}, err
	case err != nil:
		return metrics.Samples{}, &metrics.Rejected{Reason: err.Error()}
	}
	read, to, err := p.ask(ctx, request, plan, before)
	if never := (*impossible)(nil); errors.As(err, &never) && before == nil {
		return metrics.Samples{}, &metrics.Rejected{Reason: err.Error()}
	}
	if err != nil {
		return metrics.Samples{}, err
	}
	if before == nil { // only a position
		read = nil
	}
	return samplesOf(request, read, to)
}

// ask runs every query of the plan in one transaction. The samples are nil when nothing is to be asked, as after a clock that was set back.
func (p *Provider) ask(ctx context.Context, request metrics.Request, plan []query, before *time.Time) (map[string]analysis.Sample, time.Time, error) {
	var tx pgx.Tx
	err := p.within(ctx, func(ctx context.Context) (err error) {
		tx, err = p.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
		return err
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), slack)
		defer cancel()
		_ = tx.Rollback(ending) // nothing was written; a connection that can't end it is closed
	}()
	var from, to time.Time
	if err := p.within(ctx, func(ctx context.Context) (err error) {
		from, to, err = p.span(ctx, tx, before)
		return err
	}); err != nil || !to.After(from) {
		return nil, to, err
	}
	args := pgx.NamedArgs{"agent": request.Agent, "versions": []string{request.Stable, request.Canary}, "from": from, "to": to}
	out := map[string]analysis.Sample{}
	answers := map[string]*table{} // by query: several metrics may share one
	for _, q := range plan {
		if answers[q.text] == nil {
			if err := p.within(ctx, func(ctx context.Context) (err error) {
				answers[q.text], err = run(ctx, tx, q.text, args)
				return err
			}); err != nil {
				return nil, to, fmt.Errorf("metric %s: %w", q.name, err)
			}
		}
		s, err := answers[q.text].sample(q.kind, request.Stable, request.Canary)
		if err != nil {
			return nil, to, fmt.Errorf("metric %s: %w", q.name, err)
		}
		out[q.name] = s
	}
	return out, to, nil
}

// span is what to ask for, by the database's clock, and prepares the transaction. Times without a zone are taken for UTC.
func (p *Provider) span(ctx context.Context, tx pgx.Tx, before *time.Time) (from, to time.Time, err error) {
	limit := strconv.FormatInt(max(1, p.settings.Timeout.Milliseconds()), 10)
	const prepare = `SELECT now(), set_config('statement_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $1, true),
		set_config('TimeZone', 'UTC', true)`
	var ignored string
	if err := tx.QueryRow(ctx, prepare, limit).Scan(&to, &ignored, &ignored, &ignored); err != nil {
		return from, to, err
	}
	to = to.Add(-p.settings.Delay).UTC()
	if before == nil {
		return to.Add(-firstLook), to, nil
	}
	from = *before
	if to.Before(from) {
		return from, from, nil
	}
	return from, slices.MinFunc([]time.Time{to, from.Add(longest)}, time.Time.Compare), nil
}

// cursorVersion is that of the cursor's form.
const cursorVersion = 1

// cursor is how far the rows were read.
type cursor struct {
	Version int   `json:"v"`
	At      int64 `json:"at"` // by the database's clock, in microseconds since 1970: as fine as PostgreSQL's
}

func decode(raw json.RawMessage) (*time.Time, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var c cursor
	err := json.Unmarshal(raw, &c) // one of a newer version may be of other types besides
	switch {
	case c.Version > cursorVersion:
		return nil, fmt.Errorf("version %d of the cursor: %w", c.Version, metrics.ErrNewer)
	case err != nil:
		return nil, fmt.Errorf("the cursor can't be read: %w", err)
	case c.Version < 1 || c.At <= 0:
		return nil, fmt.Errorf("the cursor can't be read: version %d at %d", c.Version, c.At)
	}
	at := time.UnixMicro(c.At).UTC()
	return &at, nil
}

// samplesOf are the samples of what was read; nil: nothing was.
func samplesOf(request metrics.Request, read map[string]analysis.Sample, to time.Time) (metrics.Samples, error) {
	raw, err := json.Marshal(cursor{Version: cursorVersion, At: to.UnixMicro()})
	if err != nil {
		return metrics.Samples{}, fmt.Errorf("encode the cursor: %w", err)
	}
	out := metrics.Samples{At: to, Cursor: raw, Metrics: map[string]analysis.Sample{}}
	counted := ""
	for _, m := range request.Metrics {
		s, ok := read[m.Name]
		out.Metrics[m.Name] = s
		if ok && (m.Kind == analysis.Ratio || m.Kind == analysis.Count) && countsBetter(m.Name, counted) {
			counted = m.Name
			out.Requests = rollout.Requests{Stable: s.Stable.N, Canary: s.Canary.N}
		}
	}
	return out, nil
}

// countsBetter reports whether one metric counts requests better than another: total_requests best, then error_rate, then the first by name.
func countsBetter(name, other string) bool {
	rank := func(name string) int { return slices.Index([]string{"", "error_rate", analysis.TotalRequests}, name) }
	if a, b := rank(name), rank(other); a > 0 || b > 0 {
		return a > b
	}
	return other == "" || name < other
}
